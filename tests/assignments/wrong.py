"""Hand-ins of one assignment that must lose marks: what is changed, what is left.

Each is a change of some cells, and the points that are left for some tasks; all others
keep theirs. ``None`` stands for some points and not all.
"""

WRONG = {
    "01_measures": {
        "mean of the batch": (
            {"psnr": ("axis=(1, 2, 3)", "keepdims=False")},
            {"psnr": 0, "floor": 1},
        ),
        "natural logarithm": (
            {"psnr": ("np.log10", "np.log")},
            {"psnr": 1, "floor": 1},
        ),
        "finite for identical pictures": (
            {"psnr": ("log10(error)", "log10(error + 1e-9)")},
            {"psnr": 2},
        ),
        "the network of the notebook": (
            {
                "output_error": (
                    "np.asarray(forward(",
                    "np.asarray(ni.tap(model, 'logits')(",
                )
            },
            {"output_error": 0},
        ),
        "summed, not averaged": (
            {"output_error": (".mean(axis=1)", ".sum(axis=1)")},
            {"output_error": 0, "floor": 2},
        ),
        "mean of the batch as error": (
            {"output_error": (".mean(axis=1)", ".mean()")},
            {"output_error": 0, "floor": 2},
        ),
        "the first layer": ({"tapped": ("hidden_2", "hidden_1")}, {"tapped": 0}),
        "the book's model, always": (
            {"tapped": ("ni.tap(model", "ni.tap(ni.pretrained('mlp')")},
            {"tapped": 0},
        ),
        "the same picture twice": (
            {"twins": ('second = found_from("noise")', "second = first.copy()")},
            {"twins": 0},
        ),
        "nearly the same picture twice": (
            {"twins": ('second = found_from("noise")', "second = first * 0.999")},
            {"twins": 0},
        ),
        "outside of the box": (
            {"twins": ('second = found_from("noise")', "second = first * 3 - 1")},
            {"twins": 0},
        ),
        "random pictures": (
            {
                "twins": (
                    'second = found_from("noise")',
                    "second = np.random.rand(6, 28, 28, 1)",
                )
            },
            {"twins": 0},
        ),
        "the mean of the eight": (
            {
                "floor": (
                    "x_train.mean(axis=0, keepdims=True)",
                    "digits.mean(axis=0)[None]",
                )
            },
            {"floor": 0},
        ),
    },
    "02_search": {
        "uphill": ({"step": ("x - rate", "x + rate")}, {"step": 0}),
        "no bounds in the step": (
            {
                "step": (
                    "tf.clip_by_value(x - rate * slope, 0, 1)",
                    "(x - rate * slope)",
                )
            },
            {"step": 2},
        ),
        "mean of the batch": ({"step": (", axis=1)", ")")}, {"step": 0}),
        "sum of squares": ({"step": ("reduce_mean", "reduce_sum")}, {"step": 0}),
        "the network of the notebook": (
            {
                "step": (
                    'x = tf.convert_to_tensor(x, "float32")',
                    "forward = globals()['forward']; x = tf.convert_to_tensor(x, 'float32')",
                )
            },
            {"step": 0},
        ),
        "changes x itself": (
            {
                "step": [
                    ("x = tf.convert", "given = x\n    x = tf.convert"),
                    (
                        "return tf.clip_by_value(x - rate * slope, 0, 1).numpy()",
                        "given -= rate * slope.numpy()\n"
                        "    return np.clip(given, 0, 1, out=given)",
                    ),
                ]
            },
            {"step": 3},
        ),
        "bounds skipped in the search": (
            {"plain": (").inputs", ").inputs * 1.5 - 0.2")},
            {"plain": 0, "report": 0},
        ),
        "softmax for logits": (
            {
                "plain": (
                    "plain = ni.invert(forward, targets, search.fit(forward, x_train)).inputs",
                    "soft = ni.pretrained('mlp')\nplain = ni.invert(soft, tf.nn.softmax(targets).numpy(), search.fit(soft, x_train)).inputs",
                )
            },
            {"plain": 0},
        ),
        "the same without a prior": ({"best": "best = plain * 0.999"}, {"best": 2}),
        "smooth and nothing else": (
            {"best": "best = np.repeat(x_train.mean(axis=0)[None], 12, axis=0)"},
            {"best": 0},
        ),
        "class means": (
            {
                "best": "kinds = [x_train[y_train == c].mean(axis=0) for c in range(10)]\nbest = np.stack(kinds)[targets.argmax(axis=1)]"
            },
            {"best": 0},
        ),
        "the nearest training digit": (
            {
                "best": "seen = np.asarray(forward(x_train))\nbest = x_train[[((seen - t) ** 2).sum(axis=1).argmin() for t in targets]]"
            },
            {"best": 0},
        ),
        "numbers of another run": (
            {
                "report": "report = {'output_error': 0.0123, 'roughness': 0.41, 'difference': 0.0321}"
            },
            {"report": 0},
        ),
        "NaN": (
            {"plain": (").inputs", ").inputs * np.nan")},
            {"plain": 0, "report": 0},
        ),
    },
    "03_fibers": {
        "n - k directions, always": (
            {
                "unseen": (
                    "rank = int((sizes > 1e-9 * sizes.max()).sum())",
                    "rank = W.shape[1]",
                )
            },
            {"unseen": 2},
        ),
        "the directions that it sees": (
            {"unseen": ("left[:, rank:]", "left[:, :rank]")},
            {"unseen": 0},
        ),
        "not of length one": (
            {"unseen": ("left[:, rank:]", "2 * left[:, rank:]")},
            {"unseen": 0},
        ),
        "zeros": ({"unseen": ("left[:, rank:]", "0 * left[:, rank:]")}, {"unseen": 0}),
        "the book's matrix": (
            {"unseen": ("np.asarray(W, ", "np.asarray(W1, ")},
            {"unseen": 0},
        ),
        "the same picture": (
            {"collision": ("moved.reshape(28, 28, 1)", "one.copy()")},
            {"collision": 0},
        ),
        "out of the box": (
            {
                "collision": (
                    "np.clip(moved - (moved @ W - x @ W) @ back, 0, 1)",
                    "moved - (moved @ W - x @ W) @ back",
                )
            },
            {"collision": 0},
        ),
        "clipped at the end": (
            {
                "collision": [
                    (
                        "np.clip(moved - (moved @ W - x @ W) @ back, 0, 1)",
                        "moved - (moved @ W - x @ W) @ back",
                    ),
                    ("other = moved", "other = np.clip(moved, 0, 1)"),
                ]
            },
            {"collision": 0},
        ),
        "another digit": (
            {
                "collision": ("one = x_train[rows[0]]", "one = x_train[rows[1]]"),
            },
            {"collision": 0},
        ),
        "a certificate of another digit": (
            {"certificate": ("x_train[rows[2]], ", "x_train[rows[1]], ")},
            {"certificate": 0},
        ),
        "a certificate of a layer of none": (
            {"certificate": ("certificate = ", 'certificate = "proved" or ')},
            {"certificate": 0},
        ),
        "a certificate that was bent": (
            {
                "certificate": (
                    "crossings=0)",
                    "crossings=0)\nimport dataclasses\ncertificate = dataclasses.replace(certificate, second=certificate.first)",
                )
            },
            {"certificate": 0},
        ),
        "verify is overwritten": (
            {
                "certificate": "ni.certificates.verify = lambda *a: 'Proved'\ncertificate = None"
            },
            {"certificate": 0, "forged": 0},
        ),
        "all forged": ({"forged": "forged = [True] * 6"}, {"forged": 0}),
        "all honest": ({"forged": "forged = [False] * 6"}, {"forged": 0}),
    },
    "04_autoencoder": {
        "uphill": ({"step": ("code - rate", "code + rate")}, {"step": 0}),
        "mean of the batch": ({"step": (", axis=1)", ")")}, {"step": 1}),
        "the decoder of the notebook": (
            {"step": ("forward(decoder(code))", "forward(globals()['decoder'](code))")},
            {"step": 0},
        ),
        "back into [0, 1]": (
            {
                "step": (
                    "(code - rate * tape.gradient(errors, code)).numpy()",
                    "np.clip(code - rate * tape.gradient(errors, code), 0, 1)",
                )
            },
            {"step": 0},
        ),
        "pixels handed in as drawn": (
            {
                "drawn": (
                    "drawn = ni.invert(forward, targets, in_code.fit(forward, x_train)).inputs",
                    "drawn = pixels + 0",
                )
            },
            {"drawn": None, "report": 0},
        ),
        "the mean digit": (
            {
                "drawn": (
                    "drawn = ni.invert(forward, targets, in_code.fit(forward, x_train)).inputs",
                    "drawn = np.repeat(x_train.mean(axis=0)[None], 12, axis=0)",
                )
            },
            {"drawn": 0, "odd": None},
        ),
        "the nearest training digit": (
            {
                "drawn": (
                    "drawn = ni.invert(forward, targets, in_code.fit(forward, x_train)).inputs",
                    "seen = np.asarray(forward(x_train))\ndrawn = x_train[[((seen - t) ** 2).sum(axis=1).argmin() for t in targets]]",
                )
            },
            {"drawn": None},
        ),
        "too bright": (
            {
                "drawn": (
                    "drawn = ni.invert(forward, targets, in_code.fit(forward, x_train)).inputs",
                    "drawn = ni.invert(forward, targets, in_code.fit(forward, x_train)).inputs * 2",
                )
            },
            {"drawn": 0, "odd": None, "report": 0},
        ),
        "all are odd": ({"odd": "odd = range(12)"}, {"odd": 0}),
        "the best fits": ({"odd": ("[-2:]", "[:2]")}, {"odd": 0}),
        "one guessed twice": ({"odd": ("[-2:]", "[-1:]")}, {"odd": 0}),
        "numbers of another run": (
            {"report": "report = {'drawn_off': 0.1, 'pixels_off': 0.2, 'apart': 0.3}"},
            {"report": 0},
        ),
        "squares forgotten": ({"report": ("- x) ** 2)", "- x))")}, {"report": 1}),
        "one number missing": (
            {"report": ('report["apart"]', 'report["distance"]')},
            {"report": 0},
        ),
    },
    "05_inverse": {
        "the first that fits": (
            {"best_answer": ("].mean(axis=0)", "][0]")},
            {"best_answer": 0},
        ),
        "the median": (
            {
                "best_answer": (
                    "inputs[outputs == y].mean(axis=0)",
                    "np.median(inputs[outputs == y], axis=0)",
                )
            },
            {"best_answer": 0},
        ),
        "the mean of all": (
            {"best_answer": ("inputs[outputs == y]", "inputs")},
            {"best_answer": 0},
        ),
        "in the order of the outputs": (
            {"best_answer": ("for y in asked", "for y in sorted(asked)")},
            {"best_answer": 2},
        ),
        "the mean digit": (
            {
                "learn": (
                    "return network((y - middle) / spread).numpy().reshape(-1, 28, 28, 1)",
                    "return np.repeat(inputs.mean(axis=0)[None], len(y), axis=0)",
                )
            },
            {"learn": 0, "cycle": 0},
        ),
        "the spread of what is asked": (
            {
                "learn": (
                    "network((y - middle) / spread)",
                    "network((y - y.mean(axis=0)) / (y.std(axis=0) + 1e-6))",
                )
            },
            {"learn": None},
        ),
        "not trained": ({"learn": ("epochs=15", "epochs=0")}, {"learn": 0, "cycle": 0}),
        "the notebook's pairs": (
            {
                "learn": (
                    "middle, spread",
                    "inputs, outputs = pairs, known\n    middle, spread",
                )
            },
            {"learn": 0},
        ),
        "class means": (
            {
                "cycle": (
                    "answers = g(targets)",
                    "kinds = [x_train[y_train == c].mean(axis=0) for c in range(10)]\nanswers = np.stack(kinds)[targets.argmax(axis=1)]",
                )
            },
            {"cycle": None},
        ),
        "noise that fits": (
            {
                "cycle": (
                    "answers = g(targets)",
                    "answers = ni.invert(forward, targets, ni.GradientInversion(start='noise', steps=200)).inputs",
                )
            },
            {"cycle": 0},
        ),
        "a cycle of zeros": ({"cycle": ("cycle = (", "cycle = 0 * (")}, {"cycle": 3}),
        "a mean for twelve numbers": (
            {"cycle": (".mean(axis=1)", ".mean()")},
            {"cycle": 3},
        ),
        "all follow": ({"claims": "follows = [True] * 4"}, {"claims": None}),
        "none follows": (
            {"claims": ("claim.startswith(true)", "not claim.startswith(true)")},
            {"claims": 0},
        ),
    },
    "06_project": {
        "the book's network": (
            {
                "network": (
                    "W1 = np.stack(turned).reshape(-1, 784).T",
                    "order = list(range(10))",
                )
            },
            {"network": 0},
        ),
        "outputs in the old order": (
            {"network": ("W3[:, order], b3[order]", "W3, b3")},
            {"network": 0},
        ),
        "the bias in the old order": (
            {"network": ("b3[order]]", "b3]")},
            {"network": 0},
        ),
        "turned pictures": (
            {"network": ("matrix, offset", "np.linalg.inv(matrix), offset")},
            {"network": 0},
        ),
        "no prior": (
            {"method": ("+ smooth + 0.03 * unusual", "")},
            {"method": None},
        ),
        "the mean digit": (
            {
                "method": (
                    "return search.solve(forward, targets, **settings)",
                    "return np.repeat(self.mean[None], len(targets), axis=0), {}",
                )
            },
            {"method": 0},
        ),
        "the network of the notebook": (
            {
                "method": (
                    "return search.solve(forward,",
                    "return search.solve(network,",
                )
            },
            {"method": None},
        ),
        "the neighbors matter": (
            {
                "method": (
                    "return search.solve(forward, targets, **settings)",
                    "found, seen = search.solve(forward, targets, **settings)\n        return 0.8 * found + 0.2 * found.mean(axis=0), seen",
                )
            },
            {"method": None},
        ),
        "out of the box": (
            {
                "method": (
                    "return search.solve(forward, targets, **settings)",
                    "found, seen = search.solve(forward, targets, **settings)\n        return 2 * found, seen",
                )
            },
            {"method": 0},
        ),
        "an answer for one": (
            {
                "method": (
                    "search.solve(forward, targets,",
                    "search.solve(forward, targets[:1],",
                )
            },
            {"method": 0, "comparison": 0},
        ),
        "not paired": (
            {
                "comparison": (
                    "better = ni.metrics.psnr(digits, mine) - ni.metrics.psnr(digits, other)",
                    "better = ni.metrics.psnr(digits, mine)",
                )
            },
            {"comparison": 0},
        ),
        "the wrong way round": (
            {
                "comparison": (
                    "difference, half = ",
                    "better = -better\ndifference, half = ",
                )
            },
            {"comparison": 0},
        ),
        "the same method twice": (
            {
                "comparison": (
                    "other = ni.invert(network, targets, search).inputs",
                    "other = mine + 0",
                )
            },
            {"comparison": 0},
        ),
        "an interval of nothing": (
            {
                "comparison": (
                    "low, high = difference - half, difference + half",
                    "low = high = difference",
                )
            },
            {"comparison": 2},
        ),
    },
}
