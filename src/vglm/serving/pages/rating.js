// The page of `vglm rate`: shows a sample, sends what was chosen, goes on. It never learns which arm is which.
"use strict";
const get = (id) => document.getElementById(id);
let study, rater, sample, shownAt, isBusy = false;

async function ask(path, body) {
  const options = body && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const answer = await fetch(path, options).catch(() => null);
  const content = answer && (await answer.json().catch(() => null));
  const problem = answer === null ? study.texts.unreachable : answer.ok ? "" : content?.error || `HTTP ${answer.status}`;
  get("error").textContent = problem;
  get("error").hidden = !problem;
  return problem ? null : content;
}

function element(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function press(group, choice) {
  for (const button of group.querySelectorAll("[data-choice]")) {
    button.setAttribute("aria-pressed", button.dataset.choice === choice);
  }
}

function showFindings() {
  const place = get("findings");
  place.replaceChildren();
  if (sample.findings.length) place.append(element("p", study.texts.by_finding));
  for (const name of sample.findings) {
    const row = element("div", "", { class: "finding", "data-finding": name }), group = element("div", "", { role: "group", "aria-label": name });
    for (const choice of ["left", "equal", "right"]) {
      const button = element("button", study.texts[`${choice}_short`], { type: "button", "data-choice": choice });
      button.onclick = () => {
        press(group, button.getAttribute("aria-pressed") === "true" ? null : choice);
        button.blur();
      };
      group.append(button);
    }
    press(group, sample.chosen?.[name]);
    row.append(element("span", study.texts.findings[name] || name), group);
    place.append(row);
  }
}

function show(next) {
  sample = next;
  const isEnd = sample.position === sample.total;
  get("name").hidden = true;
  get("sample").hidden = isEnd;
  get("end").hidden = !isEnd;
  document.querySelector(".who").hidden = get("bar").hidden = false;
  get("rater").textContent = rater;
  get("progress").textContent = study.texts.progress.replace("{done}", sample.done).replace("{total}", sample.total);
  get("bar").value = sample.total ? sample.done / sample.total : 1;
  if (isEnd) return;
  const image = get("picture").querySelector("img");
  get("picture").hidden = !sample.picture;
  get("sample").className = sample.picture ? "" : "plain";
  if (sample.picture) image.src = image.parentElement.href = `picture/${sample.position}`;
  get("history").replaceChildren(...sample.history.flat().map((text) => element("p", text)));
  for (const name of ["question", "left", "right"]) get(name).textContent = sample[name];
  showFindings();
  press(document.querySelector(".choices"), sample.choice);
  get("back").disabled = sample.position === 0;
  get("forward").disabled = !sample.choice;
  shownAt = performance.now();
  window.scrollTo(0, 0);
}

async function go(position) {
  const place = position === undefined ? "" : `&position=${position}`;
  const next = await ask(`sample?rater=${encodeURIComponent(rater)}${place}`);
  if (next) show(next);
  return next;
}

async function choose(choice) {
  if (isBusy || get("sample").hidden) return;
  isBusy = true;
  try {
    const findings = {};
    for (const row of document.querySelectorAll("[data-finding]")) {
      const pressed = row.querySelector("[aria-pressed=true]");
      if (pressed) findings[row.dataset.finding] = pressed.dataset.choice;
    }
    const seconds = (performance.now() - shownAt) / 1000;
    const wasRated = Boolean(sample.choice), { position } = sample;
    if (await ask("rating", { rater, position, choice, findings, seconds })) await go(wasRated ? position + 1 : undefined);
  } finally {
    isBusy = false;
  }
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "INPUT" || !rater) return;
  const choice = { 1: "left", 2: "equal", 3: "right" }[event.key];
  if (choice) choose(choice);
  else if (event.key === "ArrowLeft" && sample?.position > 0) go(sample.position - 1);
  else if (event.key === "ArrowRight" && sample?.choice) go(sample.position + 1);
}

async function begin(name) {
  rater = name.trim();
  if (!(await go())) rater = undefined;
}

async function start() {
  study = await (await fetch("study")).json();
  document.documentElement.lang = study.language === "zh" ? "zh-Hans" : "en";
  document.title = study.texts.title;
  for (const place of document.querySelectorAll("[data-text]")) place.textContent = study.texts[place.dataset.text];
  get("name").onsubmit = (event) => {
    event.preventDefault();
    begin(event.target.elements.rater.value);
  };
  for (const button of document.querySelectorAll(".choices button")) button.onclick = () => choose(button.dataset.choice);
  get("back").onclick = get("again").onclick = () => go(sample.position - 1);
  get("forward").onclick = () => go(sample.position + 1);
  document.addEventListener("keydown", onKey);
  if (study.rater) await begin(study.rater);
  else get("name").hidden = false;
}

start();
