/** The engine in the page repeats what the package says: node --test tests/live */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import * as live from "../../book/_live/live.mjs";

const TOLERANCE = 1e-5;
const golden = JSON.parse(readFileSync(new URL("golden.json", import.meta.url)));
const net = live.networks(live.unpack(live.weights));
const digits = net.digits.map(({ picture }) => picture);
const targets = digits.map((digit) => net.logits(digit));
const third = Array.from({ length: 10 }, (_, k) => Number(k === 3));
const pair = [0, 1];

/** Take 200 steps; the objective at every tenth, and the picture at the end. */
function search(net, settings) {
  const one = new live.Search(net, { objective: "relative", steps: 200, ...settings });
  const course = [one.total];
  while (one.done < one.steps) {
    one.step();
    if (one.done % 10 === 0) course.push(one.total);
  }
  return { picture: [...one.picture], course };
}

function inPixels(net, target) {
  const code = live.box.encode(net.mean);
  return search(net, { space: live.box, code, target, prior: 0.1, rate: 0.2 });
}

function inCode(net, target) {
  return search(net, { space: net.drawing, code: net.guess(target), target, rate: 0.1 });
}

/** The objective at the second digit, and its gradient with respect to the pixels. */
function slope(net, objective, target) {
  const what = { space: live.free, code: digits[1].slice(), objective, target };
  const one = new live.Search(net, { ...what, steps: 1, rate: 1 });
  return { value: one.total, gradient: one.slope() };
}

const across = (courses) => courses[0].flatMap((_, i) => courses.map((course) => course[i]));

/** What is compared, by its name in the golden file. */
const answers = {
  logits: (net) => digits.flatMap((digit) => [...net.logits(digit)]),
  judge: (net) => digits.flatMap((digit) => [...net.judge(digit)]),
  guess: (net) => pair.flatMap((n) => [...net.guess(targets[n])]),
  decoder: (net) => pair.flatMap((n) => [...net.drawing.draw(net.guess(targets[n])).picture]),
  inverse: (net) => pair.flatMap((n) => [...net.inverse(targets[n])]),
  search: (net) => pair.flatMap((n) => inPixels(net, targets[n]).picture),
  "search/history": (net) => across(pair.map((n) => inPixels(net, targets[n]).course)),
  code: (net) => pair.flatMap((n) => inCode(net, targets[n]).picture),
  "code/history": (net) => across(pair.map((n) => inCode(net, targets[n]).course)),
  fiber: (net) => net.fiber.project(digits[1], net.fiber.seen(digits[0])).picture,
  "value/prior": () => [live.totalVariation(digits[1]).value],
  "gradient/prior": () => live.totalVariation(digits[1]).gradient,
};
const wishes = { logits: targets[0], relative: targets[0], class: third };
wishes.softmax = live.softmax(targets[0]);
for (const [name, target] of Object.entries(wishes)) {
  answers[`value/${name}`] = (net) => [slope(net, name, target).value];
  answers[`gradient/${name}`] = (net) => slope(net, name, target).gradient;
}

/** The largest difference from a golden array. */
function distance(name, net) {
  const bytes = Uint8Array.from(atob(golden[name].data), (letter) => letter.charCodeAt(0));
  const right = new Float32Array(bytes.buffer);
  const found = answers[name](net);
  assert.equal(found.length, right.length, name);
  return right.reduce((most, value, i) => Math.max(most, Math.abs(value - found[i])), 0);
}

test("everything that the package left in the golden file is compared", () => {
  assert.deepEqual(Object.keys(answers).sort(), Object.keys(golden).sort());
});

for (const name of Object.keys(answers)) {
  test(`${name}: as the package says`, () => {
    const off = distance(name, net);
    assert.ok(off <= TOLERANCE, `off by ${off}`);
  });
}

for (const [layer, index, names] of [
  ["mlp/hidden_1/kernel", 406 * 128 + 6, ["logits", "gradient/class", "search", "code", "fiber"]],
  ["mlp/logits/bias", 3, ["logits", "value/logits", "search/history"]],
  ["evaluator/conv_3/kernel", 4 * 48 * 96 + 5, ["judge"]],
  ["decoder/hidden_2/kernel", 512 * 100 + 5, ["decoder"]],
  ["inverse/hidden_1/kernel", 256 * 3 + 5, ["inverse"]],
  ["guess/weights", 50, ["guess"]],
]) {
  test(`one changed weight of ${layer} is found out`, () => {
    const arrays = live.unpack(live.weights);
    arrays[layer][index] += 0.25;
    const wrong = live.networks(arrays);
    for (const name of names) assert.ok(distance(name, wrong) > 10 * TOLERANCE, name);
  });
}

test("same first layer: all numbers as they were, every pixel in its range", () => {
  for (let n = 2; n < 8; n++) {
    const { picture, missed } = net.fiber.project(digits[n], net.fiber.seen(digits[0]));
    assert.ok(Math.max(...missed.map(Math.abs)) < 1e-9);
    assert.ok(Math.min(...picture) >= 0 && Math.max(...picture) <= 1);
    net.logits(picture).forEach((z, k) => assert.ok(Math.abs(z - targets[0][k]) < 1e-8));
  }
});

test("a byte that changed on the way is refused", () => {
  const { data } = live.weights;
  const at = Math.floor(data.length / 3);
  const damaged = data.slice(0, at) + (data[at] === "A" ? "B" : "A") + data.slice(at + 1);
  assert.throws(() => live.unpack({ ...live.weights, data: damaged }), /damaged/);
});
