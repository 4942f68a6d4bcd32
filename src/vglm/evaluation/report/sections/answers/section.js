// The answers: filter, search and page through them; cards are built when they are shown.
const data = JSON.parse(document.getElementById("data").textContent);
const PAGE = 24;
const PRINTED = 200;
const [SPLIT, ID, QUESTION, REFERENCE, BEFORE, AFTER, NO_BEFORE, NO_AFTER, FLIP, CHANGED, ENGLISH, IMAGE, OTHER, HISTORY, PATH, VALUES, DRAWS] = Array(17).keys();
const RIGHT = [[0, 1], [1, 0], [0, 0], [1, 1]];
const gallery = document.getElementById("answers");
const find = (selector) => gallery.querySelector(selector);
const filters = find(".filters"), selects = find(".selects"), search = find("input"), cards = find(".cards"), next = find(".next"), full = find("dialog");
const texts = data.rows.map((row) => null);
let first = true, show = "all", limit = PAGE, fits = [], timer = 0;
let pinned = null; // the row that the page's address names
let chosen = { split: "", fields: data.fields.map(() => "") };

const say = (key, values = {}) => data.strings[key][side].replace(/\{(\w+)\}/g, (_, name) => values[name]);
const word = (field, value) => (Object.hasOwn(data.words[field], value) ? data.words[field][value][side] : value);

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

const split = (text) => text.match(/[\u3400-\u9fff]|[\p{L}\p{N}]+|\s+|[^]/gu) || [];

// The tokens of `text` that belong to no longest common subsequence with `reference`, marked; long texts stay plain.
function marked(text, reference) {
  const part = document.createDocumentFragment();
  const a = split(text), b = split(reference);
  if (a.length * b.length > 250000) {
    part.append(text);
    return part;
  }
  const width = b.length + 1, table = new Uint16Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i -= 1)
    for (let j = b.length - 1; j >= 0; j -= 1)
      table[i * width + j] = a[i] === b[j] ? table[(i + 1) * width + j + 1] + 1 : Math.max(table[(i + 1) * width + j], table[i * width + j + 1]);
  let i = 0, j = 0, run = "", isMark = false;
  const flush = () => {
    if (run) part.append(isMark ? element("mark", "", run) : run);
    run = "";
  };
  while (i < a.length) {
    const isCommon = j < b.length && a[i] === b[j];
    if (!isCommon && j < b.length && table[i * width + j + 1] >= table[(i + 1) * width + j]) {
      j += 1;
      continue;
    }
    if (isMark === isCommon) {
      flush();
      isMark = !isCommon;
    }
    run += a[i];
    i += 1;
    if (isCommon) j += 1;
  }
  flush();
  return part;
}

function picture(place, path) {
  if (place < 0) return element("span", "blank", say(place === -1 ? "no_image" : "image_elsewhere"));
  const image = element("img");
  Object.assign(image, { src: data.images[place], alt: path, loading: "lazy", decoding: "async" });
  const button = element("button", "zoom");
  Object.assign(button, { type: "button", title: say("open_image") });
  button.append(image);
  button.addEventListener("click", () => enlarge(image.src, path));
  return button;
}

// One picture in its own size, in front of the page.
function enlarge(source, path) {
  const image = element("img");
  Object.assign(image, { src: source, alt: path });
  full.querySelector(".caption").textContent = path;
  full.querySelector(".pan").replaceChildren(image);
  full.showModal();
}

// Both answers of each draw: [before, after, why no before, why no after, flip, changed]; one draw but for sampled ones.
const draws = (row) => [[row[BEFORE], row[AFTER], row[NO_BEFORE], row[NO_AFTER], row[FLIP], row[CHANGED]], ...(row[DRAWS] || [])];

function answer(row, draw, arm, label) {
  const isRight = RIGHT[draw[4]][arm], error = draw[2 + arm], text = draw[arm];
  const box = element("div", `answer ${isRight ? "right" : "wrong"}`);
  const head = element("p", "arm", data.labels[arm][side] + label);
  head.append(element("span", "mark", say(isRight ? "right" : "wrong")));
  const body = element("p", "text");
  if (error !== null) body.append(say("no_answer") + error);
  else if (!text) body.append(say("empty"));
  else {
    body.lang = row[ENGLISH] ? "en" : "zh-Hans";
    body.append(marked(text, row[REFERENCE]));
  }
  if (error !== null || !text) body.classList.add("none");
  box.append(head, body);
  return box;
}

function card(row) {
  const made = element("article", row === pinned ? "pinned" : ""), lang = row[ENGLISH] ? "en" : "zh-Hans";
  const left = element("div", "picture");
  left.append(picture(row[IMAGE], row[PATH]));
  if (row[OTHER] !== null) {
    const figure = element("figure", "other");
    figure.append(picture(row[OTHER], ""), element("figcaption", "", data.labels[0][side]));
    left.append(figure);
  }
  const asked = element("div", "asked"), tags = element("p", "tags");
  const all = draws(row);
  for (const flip of new Set(all.map((draw) => draw[4]))) tags.append(element("span", "flip", say(`flip${flip}`)));
  if (data.splits.length > 1) tags.append(element("span", "", data.splits[row[SPLIT]][side]));
  row[VALUES].forEach((value, field) => value && tags.append(element("span", "", word(field, value))));
  const link = element("a", "id", row[ID]);
  Object.assign(link, { href: `#${encodeURIComponent(anchor(row))}`, title: say("link") });
  tags.append(link);
  asked.append(tags);
  for (const [question, reply] of row[HISTORY]) {
    const turn = element("p", "history", question);
    turn.append(element("br"), reply);
    asked.append(turn);
  }
  const reference = element("p", "reference");
  reference.append(element("span", "label", say("reference")), row[REFERENCE]);
  asked.append(element("p", "question", row[QUESTION]), reference);
  for (const part of asked.querySelectorAll(".history, .question, .reference")) part.lang = lang;
  const answers = element("div", "answers");
  all.forEach((draw, place) => {
    const label = all.length > 1 ? ` · ${say("draw", { n: place + 1, total: all.length })}` : "";
    answers.append(answer(row, draw, 0, label), answer(row, draw, 1, label));
  });
  made.append(left, asked, answers);
  return made;
}

const anchor = (row) => `sample-${data.names[row[SPLIT]]}-${row[ID]}`;

const belongs = (row, key) => key === "all" || draws(row).some((draw) => (key === "changed" ? draw[5] === 1 : `flip${draw[4]}` === key));

function textOf(place) {
  if (texts[place] === null) {
    const row = data.rows[place];
    texts[place] = [row[ID], row[QUESTION], row[REFERENCE], ...draws(row).flatMap((draw) => draw.slice(0, 4)), ...row[VALUES], ...row[HISTORY].flat()].join("\n").toLowerCase();
  }
  return texts[place];
}

function status() {
  find(".count").textContent = fits.length ? say("shown", { n: cards.childElementCount.toLocaleString(), total: fits.length.toLocaleString() }) : say("none_fits");
  next.hidden = cards.childElementCount >= fits.length;
}

function extend(count) {
  cards.append(...fits.slice(cards.childElementCount, count).map(card));
  status();
}

function update() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  fits = data.rows.filter((row, place) =>
    belongs(row, show) && (chosen.split === "" || row[SPLIT] === Number(chosen.split)) &&
    chosen.fields.every((value, field) => !value || row[VALUES][field] === value) &&
    words.every((word) => textOf(place).includes(word)));
  if (pinned) fits = [pinned, ...fits.filter((row) => row !== pinned)];
  cards.replaceChildren();
  limit = PAGE;
  extend(limit);
  for (const button of filters.children) button.setAttribute("aria-pressed", String(button.dataset.show === show));
}

function choice(label, options, value, choose) {
  const made = element("select");
  made.setAttribute("aria-label", label);
  made.append(new Option(say("any", { field: label }), ""), ...options.map(([key, text]) => new Option(text, key)));
  made.value = value;
  made.addEventListener("input", () => { choose(made.value); update(); });
  return made;
}

function controls() {
  filters.replaceChildren();
  for (const key of ["all", "changed", "flip0", "flip1", "flip2", "flip3"]) {
    const total = data.rows.filter((row) => belongs(row, key)).length;
    if (!total && key !== "all") continue;
    const button = element("button", "", say(key));
    button.type = "button";
    button.dataset.show = key;
    button.append(element("small", "", total.toLocaleString()));
    button.addEventListener("click", () => { show = key; update(); });
    filters.append(button);
  }
  selects.replaceChildren();
  if (data.splits.length > 1) selects.append(choice(say("split"), data.splits.map((each, place) => [String(place), each[side]]), chosen.split, (value) => { chosen.split = value; }));
  data.fields.forEach((field, place) => {
    const values = [...new Set(data.rows.map((row) => row[VALUES][place]))].filter(Boolean).sort();
    selects.append(choice(field[side], values.map((value) => [value, word(place, value)]), chosen.fields[place], (value) => { chosen.fields[place] = value; }));
  });
  search.placeholder = say("search");
  search.setAttribute("aria-label", say("search"));
  next.textContent = say("more");
}

// A permalink, #sample-<split>-<id>: its sample stands first, highlighted, whatever the filters say.
function follow() {
  let name = "";
  try { name = decodeURIComponent(location.hash.slice(1)); } catch { return; }
  const row = data.rows.find((each) => anchor(each) === name);
  if (!row) return;
  pinned = row;
  update();
  cards.firstElementChild.scrollIntoView({ block: "center" });
}

addEventListener("hashchange", follow);
full.addEventListener("click", (event) => { if (event.target === full) full.close(); });
search.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(update, 80); });
next.addEventListener("click", () => { limit += PAGE; extend(limit); });
find("form").addEventListener("submit", (event) => event.preventDefault());
addEventListener("beforeprint", () => extend(PRINTED));
document.addEventListener("language", () => { controls(); update(); if (first) follow(); first = false; });
