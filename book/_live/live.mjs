/** The network in the page as a module, for whoever imports: tests, Node, Jupyter. */
import "./live-engine.js";
import "./live-weights.js";

export const { unpack, networks, Search, box, free, softmax, mse, totalVariation, weights } =
  globalThis.netinvertLive;
