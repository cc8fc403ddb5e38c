"""Draw the picture of the README and the opening page: what three methods see.

``python -m tools.readme_picture`` takes one test digit of each kind, keeps nothing
but the ten outputs of the network, and lets every method draw what it makes of them.
"""

import numpy as np

import netinvert as ni
from tools.environment import ROOT


def main() -> None:
    (x_train, _), (x_test, y_test) = ni.load_mnist()
    digits = x_test[[np.flatnonzero(y_test == digit)[0] for digit in range(10)]]
    forward = ni.tap(ni.pretrained("mlp"), "logits")
    targets = forward(digits)
    methods = {
        "gradient search": ni.GradientInversion(),
        "autoencoder": ni.AutoencoderInversion(),
        "inverse network": ni.InverseNetwork(),
    }
    rows = {"the digit": digits}
    for name, method in methods.items():
        method.fit(forward, x_train)
        rows[name] = ni.invert(forward, targets, method).inputs
    picture = ni.plots.compare(rows)
    file = ROOT / "book" / "images" / "reconstructions.png"
    file.write_bytes(ni.plots.figure_png(picture))
    print(f"wrote {file.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
