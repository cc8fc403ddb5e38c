/*
 * Turns every <div class="ni-live live-USE"> into a panel, and puts one below every cell
 * of a chapter with the tag live-USE. Their code comes with the page, the weights (1.7 MB)
 * only when asked for: by a hand on the panel, or by scrolling to it.
 */
(() => {
  "use strict";
  const here = document.currentScript.src;
  for (const cell of document.querySelectorAll('[class*="tag_live-"]')) {
    const root = document.createElement("div");
    root.className = `ni-live ${cell.className.match(/live-\w+/)[0]}`;
    cell.after(root);
  }
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
