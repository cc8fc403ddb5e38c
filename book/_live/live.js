/*
 * Turns every <div class="ni-live live-USE"> into a panel. Its code comes with the page,
 * the weights (1.7 MB) only when asked for: by a hand on the panel, or by scrolling to it.
 */
(() => {
  "use strict";
  const here = document.currentScript.src;
  const roots = document.querySelectorAll(".ni-live");
  if (!roots.length) return;

  const script = (name) =>
    new Promise((resolve, reject) => {
      const tag = document.createElement("script");
      tag.src = new URL(name, here).href;
      tag.async = false; // the panel needs the engine, whichever arrives first
      tag.onload = resolve;
      tag.onerror = () => reject(new Error(`${name} did not arrive.`));
      document.head.append(tag);
    });

  let promise;
  const load = () =>
    (promise ??= script("live-weights.js").then(() => {
      const { networks, unpack, weights } = globalThis.netinvertLive;
      return networks(unpack(weights));
    }));

  Promise.all([script("live-engine.js"), script("live-panel.js")]).then(
    () => roots.forEach((root) => globalThis.netinvertLive.build(root, load)),
    () => {}, // without them the still picture stays
  );
})();
