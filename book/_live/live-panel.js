/*
 * What the reader sees of the network: one panel, four uses. Like live-engine.js a
 * script without import, so that it runs from file:// too.
 */
(() => {
  "use strict";
  const live = globalThis.netinvertLive;
  const { SIDE, Search, box, free, softmax, mse } = live;
  const PIXELS = SIDE * SIDE;
  const REACH = 20; // of the bars and sliders; no test digit's logits go further
  const BUDGET = 9; // milliseconds of a frame for steps; the rest is for drawing
  const calm = matchMedia("(prefers-reduced-motion: reduce)");

  /** An element with properties and children. */
  function el(tag, properties = {}, ...children) {
    const { aria = {}, ...others } = properties;
    const element = Object.assign(document.createElement(tag), others);
    for (const [name, value] of Object.entries(aria)) element.setAttribute(`aria-${name}`, value);
    element.append(...children);
    return element;
  }

  const button = (text, onclick) => el("button", { type: "button", onclick }, text);
  const group = (name, ...children) => el("div", { className: `live-${name}` }, ...children);
  const blank = () => new Float64Array(PIXELS);
  const best = (values) => values.indexOf(Math.max(...values));

  /** A number in few letters, of a width that does not jump. */
  const short = (value) =>
    value >= 100 ? String(Math.round(value)) : (value >= 1e-4 ? value.toPrecision(2) : value > 1e-12 ? value.toExponential(0) : "0").replace("-", "\u2212");

  /** "7 (99 %)": what logits say. */
  function says(logits) {
    const shares = softmax(logits);
    return `${best(shares)} (${Math.round(100 * Math.max(...shares))}\u00a0%)`;
  }

  /** A labelled picture. */
  class Paper {
    constructor(label) {
      this.canvas = el("canvas", { width: SIDE, height: SIDE });
      this.canvas.setAttribute("role", "img");
      this.label = el("figcaption", {}, label);
      this.text = el("p");
      this.root = el("figure", {}, this.canvas, this.label, this.text);
      this.name(label);
      this.show(blank());
    }

    name(label) {
      this.canvas.setAttribute("aria-label", label);
    }

    /** Draw ink on white paper; what is out of range in color, as in the book's figures. */
    show(picture, text) {
      if (text !== undefined) this.text.textContent = text;
      const image = new ImageData(SIDE, SIDE);
      for (let i = 0; i < PIXELS; i++) {
        const [low, high] = [Math.max(-picture[i], 0), Math.max(picture[i] - 1, 0)];
        const gray = 255 * (1 - Math.min(Math.max(picture[i], 0), 1));
        image.data.set([gray - 255 * low, gray + 114 * high - 128 * low, gray + 178 * high, 255], 4 * i);
      }
      this.canvas.getContext("2d").putImageData(image, 0, 0);
    }

    /** Draw a gradient: blue where ink would lower the objective, orange where raise. */
    showSigned(values) {
      const most = Math.max(1e-12, ...values.map(Math.abs));
      const image = new ImageData(SIDE, SIDE);
      values.forEach((value, i) => {
        const [r, g, b] = value > 0 ? [213, 94, 0] : [0, 114, 178];
        const share = Math.abs(value) / most;
        const mix = [r, g, b].map((color) => 255 + share * (color - 255));
        image.data.set([...mix, 255], 4 * i);
      });
      this.canvas.getContext("2d").putImageData(image, 0, 0);
    }
  }

  /** A picture to draw on: with a pointer, or arrow keys and space. */
  class Pad extends Paper {
    /** @param {function(boolean)} changed called after each change; true at its end */
    constructor(label, changed) {
      super(label);
      Object.assign(this, { changed, picture: blank(), ink: 1, pen: false, at: [13.5, 13.5] });
      this.canvas.setAttribute("role", "application");
      this.canvas.setAttribute("aria-roledescription", "drawing area");
      this.canvas.tabIndex = 0;
      this.cursor = Object.assign(group("cursor"), { hidden: true });
      this.board = group("board", this.canvas, this.cursor, el("span", { aria: { hidden: true } }, label));
      this.root.prepend(this.board);
      this.set(blank());
      this.point();
      const { canvas } = this;
      canvas.onpointerdown = (event) => {
        canvas.setPointerCapture(event.pointerId);
        this.pen = false;
        this.cursor.hidden = true;
        this.last = this.place(event);
        this.line(this.last, this.last);
      };
      canvas.onpointermove = (event) => {
        if (!this.last) return;
        const to = this.place(event);
        this.line(this.last, to);
        this.last = to;
      };
      canvas.onpointerup = canvas.onpointercancel = () => {
        if (this.last) this.changed(true);
        this.last = null;
      };
      canvas.onkeydown = (event) => this.key(event);
    }

    place(event) {
      const frame = this.canvas.getBoundingClientRect();
      const scale = SIDE / frame.width;
      return [(event.clientX - frame.left) * scale - 0.5, (event.clientY - frame.top) * scale - 0.5];
    }

    key(event) {
      const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
      const move = moves[event.key];
      if (event.key === " ") {
        this.pen = !this.pen;
        if (this.pen) this.line(this.at, this.at);
        this.changed(true);
      } else if (event.key === "Delete" || event.key === "Backspace") {
        this.set(blank());
        this.changed(true);
      } else if (move) {
        const to = this.at.map((value, n) => Math.min(Math.max(value + move[n], 0), SIDE - 1));
        if (this.pen) this.line(this.at, to);
        this.at = to;
      } else return;
      event.preventDefault();
      this.cursor.hidden = false;
      this.point();
    }

    /** Show where the keys' pen is, and whether it is down. */
    point() {
      this.cursor.style.left = `${(100 * (this.at[0] + 0.5)) / SIDE}%`;
      this.cursor.style.top = `${(100 * (this.at[1] + 0.5)) / SIDE}%`;
      this.cursor.classList.toggle("live-down", this.pen);
    }

    /** A soft stroke, about as wide as those of the digits. */
    line(from, to) {
      const pieces = Math.ceil(2 * Math.hypot(to[0] - from[0], to[1] - from[1])) || 1;
      for (let n = 0; n <= pieces; n++) {
        const [x, y] = from.map((value, k) => value + ((to[k] - value) * n) / pieces);
        for (let i = 0; i < PIXELS; i++) {
          const distance = Math.hypot((i % SIDE) - x, Math.floor(i / SIDE) - y);
          const strength = Math.min(Math.max(1.9 - distance, 0), 1);
          const value = this.picture[i];
          this.picture[i] = this.ink ? Math.max(value, strength) : Math.min(value, 1 - strength);
        }
      }
      this.set(this.picture);
      this.changed(false);
    }

    set(picture) {
      this.picture = Float64Array.from(picture);
      this.show(this.picture);
      this.board.classList.toggle("live-empty", !picture.some(Boolean));
    }
  }

  /** Ten numbers, as bars or as sliders. */
  class Numbers {
    constructor(label, moved) {
      this.rows = Array.from({ length: 10 }, (_, k) => {
        const bar = moved
          ? el("input", { type: "range", min: -REACH, max: REACH, step: 0.1, value: 0, aria: { label: `number for ${k}` } })
          : el("span", { className: "live-bar", aria: { hidden: true } }, el("i"));
        const text = el("span", { className: "live-value" }, "–");
        if (moved) bar.oninput = () => moved(this.rows.map((row) => Number(row.bar.value)));
        return { bar, text, root: el("li", {}, el("b", {}, String(k)), bar, text) };
      });
      const list = el("ol", { className: "live-numbers", aria: { label } });
      list.setAttribute("role", "list");
      list.append(...this.rows.map(({ root }) => root));
      this.root = el("div", { className: "live-ten" }, el("p", { className: "live-title" }, label), list);
    }

    show(values) {
      const top = best(Array.from(values));
      this.rows.forEach(({ bar, text, root }, k) => {
        text.textContent = values[k].toFixed(1).replace("-", "\u2212");
        root.classList.toggle("live-top", k === top);
        if (bar.tagName === "INPUT") {
          bar.value = values[k];
          return;
        }
        const width = Math.min(Math.abs(values[k]) / REACH, 1) * 50;
        bar.firstChild.style.width = `${width}%`;
        bar.firstChild.style.left = `${values[k] < 0 ? 50 - width : 50}%`;
      });
    }
  }

  /** A choice with a label. */
  class Choice {
    constructor(label, options, chosen, changed) {
      this.select = el("select", { onchange: changed });
      for (const [value, text] of Object.entries(options)) {
        this.select.append(el("option", { value, selected: value === chosen }, text));
      }
      this.root = el("label", {}, `${label} `, this.select);
    }

    get value() {
      return this.select.value;
    }
  }

  /** The curve of the objective, on a logarithmic scale. */
  class Curve {
    constructor() {
      this.canvas = el("canvas", { width: 560, height: 160, className: "live-curve" });
      this.canvas.setAttribute("role", "img");
      this.canvas.setAttribute("aria-label", "the objective, step by step");
      this.text = el("figcaption");
      this.root = el("figure", { className: "live-course" }, this.canvas, this.text);
    }

    show(values, steps) {
      const context = this.canvas.getContext("2d");
      const { width, height } = this.canvas;
      const logs = values.map((value) => Math.log10(Math.max(value, 1e-12)));
      const [low, high] = [Math.min(...logs, logs[0] - 1), Math.max(...logs)];
      context.clearRect(0, 0, width, height);
      context.strokeStyle = "#0072B2";
      context.lineWidth = 3;
      context.beginPath();
      logs.forEach((value, n) => {
        context.lineTo((width * n) / steps, 4 + ((high - value) / (high - low)) * (height - 8));
      });
      context.stroke();
      const text = `objective ${short(values.at(-1))} after ${values.length - 1} of ${steps} steps (it began at ${short(values[0])}; scale logarithmic)`;
      this.text.textContent = text;
      this.canvas.setAttribute("aria-label", text);
    }
  }

  /** Work in frames until `work` says that it is done. */
  class Clock {
    /** @param {number} most pieces of work in a frame, so that it can be watched */
    constructor(most, work, draw, ended) {
      Object.assign(this, { most, work, draw, ended, frame: 0 });
    }

    get running() {
      return this.frame !== 0;
    }

    start() {
      if (!this.running) this.frame = requestAnimationFrame(() => this.tick());
    }

    stop() {
      cancelAnimationFrame(this.frame);
      this.frame = 0;
    }

    tick() {
      const begun = performance.now();
      let more = true;
      for (let n = 0; more && n < this.most && performance.now() - begun < BUDGET; n++) {
        more = this.work();
      }
      // Who asked for less motion sees two pictures a second, and the last.
      if (!more || !calm.matches || !(begun - this.drawn < 500)) {
        this.draw();
        this.drawn = begun;
      }
      this.frame = more ? requestAnimationFrame(() => this.tick()) : 0;
      if (!more) this.ended();
    }
  }

  /** What the four uses share: the network once it is there, and one sentence. */
  class Panel {
    constructor(root, load) {
      Object.assign(this, { root, load, picture: blank() });
      this.status = el("p", { className: "live-status" });
      this.spoken = el("p", { className: "live-spoken", role: "status" });
      this.panel = el("div", { className: "live-panel", role: "group", aria: { label: this.constructor.title } });
      // A page that has a still picture inside has said what the panel is for.
      const title = root.children.length ? [] : [el("p", { className: "live-title" }, this.constructor.title)];
      this.panel.append(...title, ...this.parts(), this.status, this.spoken);
      root.prepend(this.panel);
      root.dataset.state = "waiting";
      for (const kind of ["pointerenter", "pointerdown", "focusin"]) {
        this.panel.addEventListener(kind, () => this.ready().catch(() => {}), { once: true });
      }
      // What is in view when the page opens waits for a hand; what is scrolled to does not.
      let before;
      new IntersectionObserver(([entry]) => {
        if (before === false && entry.isIntersecting) this.ready().catch(() => {});
        before = entry.isIntersecting;
      }).observe(this.panel);
    }

    /** The networks; loads them the first time. */
    ready() {
      return (this.promise ??= this.begin());
    }

    async begin() {
      this.say("Loading the network …");
      try {
        this.net = await this.load();
      } catch (error) {
        this.root.dataset.state = "failed";
        this.say(`${error.message} Reload the page to try again; the picture beside shows what it does.`);
        throw error;
      }
      this.say("");
      this.root.dataset.state = "ready";
      this.opened();
    }

    /** Show a sentence; it is read aloud when it has stood for a second. */
    say(text) {
      this.status.textContent = text;
      clearTimeout(this.rest);
      this.rest = setTimeout(() => (this.spoken.textContent = text), 1000);
    }

    /** A button whose work begins when the network is there. */
    button(text, work) {
      return button(text, () => this.ready().then(work, () => {}));
    }

    /** The next picture of the test set. */
    next() {
      this.number = ((this.number ?? -1) + 1) % this.net.digits.length;
      return this.net.digits[this.number];
    }
  }

  /** Draw a digit, and invert its ten numbers in three ways. */
  class Opening extends Panel {
    static title = "Invert a digit yourself";

    parts() {
      this.pad = new Pad("draw a digit", (end) => this.drawn(end));
      this.numbers = new Numbers("what the network says");
      this.answers = ["gradient search", "search in a code", "inverse network"].map((name) => new Paper(name));
      this.clock = new Clock(4, () => this.work(), () => this.show(), () => this.ended());
      const buttons = group(
        "buttons",
        this.button("a test digit", () => this.give(this.next().picture)),
        button("clear", () => this.give(blank())),
        Object.assign(this.button("invert", () => this.invert()), { className: "live-main" }),
      );
      return [
        group("row", group("draw", this.pad.root, buttons), this.numbers.root),
        group("row live-three", ...this.answers.map(({ root }) => root)),
      ];
    }

    opened() {
      this.drawn(true);
    }

    give(picture) {
      this.pad.set(picture);
      this.drawn(true);
    }

    drawn(end) {
      if (!this.net) return;
      this.clock.stop();
      this.picture = this.pad.picture;
      this.logits = this.net.logits(this.picture);
      this.numbers.show(this.logits);
      for (const answer of this.answers) answer.show(blank(), "");
      if (!end) return;
      const empty = !this.picture.some(Boolean);
      this.say(empty ? "" : `The network reads a ${says(this.logits)}. Invert is given the ten numbers, and nothing else.`);
    }

    invert() {
      const { net } = this;
      if (!this.picture.some(Boolean)) this.give(this.next().picture);
      const target = Array.from(this.logits);
      const what = { objective: "relative", target };
      this.searches = [
        new Search(net, { ...what, space: box, code: box.encode(net.mean), prior: 0.1, steps: 500, rate: 0.2 }),
        new Search(net, { ...what, space: net.drawing, code: net.guess(target), steps: 300, rate: 0.1 }),
      ];
      this.truth = this.picture.slice();
      this.say("Searching …");
      this.clock.start();
    }

    work() {
      const [pixels, code] = this.searches;
      // Side by side: five steps in the pixels cost what one in the code does.
      if (code.done / code.steps < pixels.done / pixels.steps) code.step();
      else for (let n = 0; n < 5; n++) pixels.step();
      return pixels.done < pixels.steps || code.done < code.steps;
    }

    show() {
      const [pixels, code] = this.searches;
      this.found = [pixels.picture, code.picture, this.net.inverse(pixels.target)];
      this.found.forEach((picture, n) => {
        const missed = mse(this.net.logits(picture), pixels.target);
        const errors = `output error ${short(missed)}\nreconstruction error ${short(mse(picture, this.truth))}`;
        this.answers[n].show(picture, errors);
      });
    }

    ended() {
      const read = this.found.map((picture) => best(Array.from(this.net.logits(picture))));
      this.say(`Three pictures from ten numbers: the network reads them as ${read.join(", ")}.`);
    }
  }

  /** Paint on a digit while the first layer notices nothing. */
  class Why extends Panel {
    static title = "Yourself: change a digit so that no layer notices";

    parts() {
      this.pad = new Pad("paint here", () => this.wish());
      this.original = new Paper("the digit it was");
      this.numbers = new Numbers("what the network says");
      this.tool = button("eraser", () => {
        this.pad.ink = 1 - this.pad.ink;
        this.tool.setAttribute("aria-pressed", String(!this.pad.ink));
      });
      this.tool.setAttribute("aria-pressed", "false");
      const buttons = group(
        "buttons",
        this.tool,
        this.button("towards another digit", () => this.towards()),
        this.button("start over", () => this.take(this.number)),
        this.button("another start", () => this.take(this.number + 1)),
      );
      return [group("row live-three", this.pad.root, this.original.root, this.numbers.root), buttons];
    }

    opened() {
      this.take(0);
    }

    take(number) {
      this.number = number % this.net.digits.length;
      this.other = this.number;
      const { picture } = this.net.digits[this.number];
      this.start = picture;
      this.seen = this.net.fiber.seen(picture);
      this.before = this.net.logits(picture);
      this.original.show(picture);
      this.pad.set(picture);
      this.show();
    }

    towards() {
      this.other = (this.other + 1) % this.net.digits.length;
      this.pad.set(this.net.digits[this.other].picture);
      this.wish();
    }

    /** Take the nearest picture that the first layer cannot tell from the digit. */
    wish() {
      if (!this.net) return;
      this.frame ??= requestAnimationFrame(() => {
        this.frame = undefined;
        this.pad.set(this.net.fiber.project(this.pad.picture, this.seen).picture);
        this.show();
      });
    }

    show() {
      this.picture = this.pad.picture;
      this.logits = this.net.logits(this.picture);
      this.numbers.show(this.logits);
      const off = (a, b) => a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i])), 0);
      const layer = off(this.net.fiber.seen(this.picture), this.seen);
      const pixels = this.picture.filter((value, i) => Math.abs(value - this.start[i]) > 0.1).length;
      if (!pixels) {
        this.say("Paint on the digit. The other pixels give way, so that the first layer and the ten numbers stay.");
        return;
      }
      this.say(
        `${pixels} of 784 pixels changed by more than 0.1. Largest change of the 128 values of the ` +
          `first layer: ${short(layer)}; of the ten numbers: ${short(off(this.logits, this.before))}. ` +
          `The evaluator, another network, reads it as a ${says(this.net.judge(this.picture))}.`,
      );
    }
  }

  /** Gradient search, step by step. */
  class Steps extends Panel {
    static title = "Yourself: gradient search, step by step";

    parts() {
      const again = () => this.net && this.restart();
      const classes = Object.fromEntries(Array.from({ length: 10 }, (_, k) => [k, `a ${k}`]));
      this.choices = {
        objective: new Choice("objective", { relative: "logits", softmax: "softmax", class: "class" }, "relative", again),
        wanted: new Choice("class", classes, "3", again),
        start: new Choice("start", { mean: "mean digit", noise: "noise", gray: "even gray", blank: "blank" }, "mean", again),
        bounds: new Choice("bounds", { box: "inside the loop", free: "none" }, "box", again),
        prior: new Choice("total variation", { 0: "0", 0.03: "0.03", 0.1: "0.1", 0.3: "0.3", 1: "1" }, "0.1", again),
        rate: new Choice("learning rate", { 0.01: "0.01", 0.05: "0.05", 0.2: "0.2", 1: "1" }, "0.2", again),
        steps: new Choice("steps", { 200: "200", 500: "500", 2000: "2,000" }, "500", again),
      };
      this.papers = ["the true digit", "found", "its gradient"].map((name) => new Paper(name));
      this.curve = new Curve();
      this.clock = new Clock(5, () => this.work(), () => this.show(), () => this.ended());
      this.play = this.button("play", () => (this.clock.running ? this.pause() : this.run()));
      this.play.className = "live-main";
      const buttons = group(
        "buttons",
        this.play,
        this.button("one step", () => this.once()),
        this.button("start over", () => this.restart()),
        this.button("another digit", () => {
          this.next();
          this.restart();
        }),
      );
      const choices = group("choices", ...Object.values(this.choices).map(({ root }) => root));
      const pictures = group("row live-three", ...this.papers.map(({ root }) => root));
      this.choices.wanted.root.hidden = true; // until a class is the objective
      // Buttons above all that grows, so that none moves away under a finger.
      return [choices, buttons, pictures, this.curve.root];
    }

    opened() {
      this.next();
      this.restart();
    }

    /** Read the settings and stand at the start. */
    restart() {
      this.pause();
      const { net } = this;
      const { objective, wanted, start, bounds, prior, rate, steps } = this.choices;
      this.truth = net.digits[this.number].picture;
      this.aim = net.logits(this.truth);
      let seed = this.number + 1; // the same noise for the same digit
      const starts = {
        mean: net.mean,
        noise: blank().map(() => (seed = (seed * 16807) % 2147483647) / 2147483647),
        gray: blank().fill(0.5),
        blank: blank(),
      };
      const targets = {
        relative: Array.from(this.aim),
        softmax: softmax(this.aim),
        class: Array.from({ length: 10 }, (_, k) => Number(k === Number(wanted.value))),
      };
      wanted.root.hidden = objective.value !== "class";
      const space = bounds.value === "box" ? box : free;
      this.search = new Search(net, {
        space,
        code: space.encode(starts[start.value]),
        objective: objective.value,
        target: targets[objective.value],
        prior: Number(prior.value),
        rate: Number(rate.value),
        steps: Number(steps.value),
      });
      this.totals = [this.search.total];
      this.show();
      this.report();
    }

    run() {
      if (this.search.done >= this.search.steps) this.restart();
      this.play.textContent = "pause";
      this.say("");
      this.clock.start();
    }

    pause() {
      this.clock.stop();
      this.play.textContent = "play";
      if (this.search) this.report();
    }

    once() {
      this.pause();
      if (this.search.done < this.search.steps) this.work();
      this.show();
      this.report();
    }

    work() {
      this.search.step();
      this.totals.push(this.search.total);
      return this.search.done < this.search.steps;
    }

    ended() {
      this.play.textContent = "play";
      this.report();
    }

    show() {
      const { search } = this;
      this.picture = search.picture;
      this.logits = search.logits;
      if (!(performance.now() - this.judged < 300)) {
        this.judged = performance.now(); // it takes longer than many steps
        this.judgement = says(this.net.judge(this.picture));
      }
      this.papers[0].show(this.truth, `network: ${says(this.aim)}`);
      this.papers[1].show(this.picture, `network: ${says(this.logits)}\nevaluator: ${this.judgement}`);
      this.papers[2].showSigned(search.slope());
      this.curve.show(this.totals, search.steps);
    }

    /** Both errors, and what others say; when the search rests. */
    report() {
      const { net, picture, aim, truth } = this;
      const clipped = picture.map((value) => Math.min(Math.max(value, 0), 1));
      const outside = picture.filter((value) => value < 0 || value > 1).length;
      // A wanted class comes from no digit, so there is nothing to miss but the class.
      const named = this.search.objective === "class";
      const error = (logits) => (named ? `the network reads a ${says(logits)}` : `output error ${short(mse(logits, aim))}`);
      const after = outside ? ` ${outside} pixels are out of range; clipped: ${error(net.logits(clipped))}.` : "";
      const second = named ? "" : `, reconstruction error ${short(mse(picture, truth))}`;
      this.say(
        `Now: ${error(this.logits)}${second}. The evaluator, another network, reads it as a ` +
          `${says(net.judge(picture))}.${after}`,
      );
    }
  }

  /** Drag the ten numbers, and watch what the inverse network draws. */
  class Inverse extends Panel {
    static title = "Yourself: ask the inverse network";

    parts() {
      this.sliders = new Numbers("ten numbers to drag", (values) => this.ask(values));
      this.paper = new Paper("what g draws of them");
      this.numbers = new Numbers("what f says of that");
      const buttons = group(
        "buttons",
        this.button("numbers of a test digit", () => this.ask(this.net.logits(this.next().picture))),
        this.button("all zero", () => this.ask(new Float64Array(10))),
      );
      return [group("row", this.sliders.root, group("draw", this.paper.root, buttons), this.numbers.root)];
    }

    opened() {
      this.ask(this.net.logits(this.next().picture));
    }

    ask(values) {
      if (!this.net) return;
      this.sliders.show(values);
      this.picture = this.net.inverse(values);
      this.logits = this.net.logits(this.picture);
      this.paper.show(this.picture);
      this.numbers.show(this.logits);
      this.say(
        `f reads g's picture as a ${says(this.logits)}; the evaluator, another network, as a ` +
          `${says(this.net.judge(this.picture))}. Output error ${short(mse(this.logits, values))}.`,
      );
    }
  }

  const uses = { opening: Opening, why: Why, steps: Steps, inverse: Inverse };

  /** Put a panel into an element of class "live-USE"; the element's `live` is the panel. */
  live.build = (root, load) => {
    const use = Object.keys(uses).find((name) => root.classList.contains(`live-${name}`));
    root.live = new uses[use](root, load);
  };
})();
