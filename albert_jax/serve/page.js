"use strict";
let models = [];
const turnsOf = new Map();  // Name of a model -> the turns of its conversation.
const exampleOf = new Map();  // Id of a section -> number of the example that it shows.

const $ = (selector, inside = document) => inside.querySelector(selector);
const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];
const signed = (number) => (number < 0 ? "−" : "+") + Math.abs(number).toFixed(2);
const percent = (share) => (100 * share).toFixed(1) + " %";

function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

function shaded(element, share) {
  element.style.setProperty("--share", share.toFixed(3));
  return element;
}

async function ask(question, fields) {
  let response;
  try {
    response = await fetch("/ask/" + question, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(fields),
    });
  } catch {
    throw new Error("The server does not answer: start albert-jax serve again.");
  }
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

function chosen() { return models.find((model) => model.name === $("#model").value); }

function onSubmit(id, work) {
  const section = $("#" + id);
  $("form", section).addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = $("button", section), error = $(".error", section), model = chosen();
    if (button.disabled) return;
    button.disabled = true;
    error.textContent = "";
    try {
      await work(section, new FormData(event.target), model);
    } catch (problem) {
      if (model === chosen()) error.textContent = problem.message;
    } finally {
      button.disabled = false;
    }
  });
}

// ---- pieces of answers ----------------------------------------------------------------------

function bars(rows, title) {
  const table = make("table");
  if (title) table.append(make("caption", "", title));
  for (const [name, share] of rows) {
    const bar = make("div");
    bar.style.width = (100 * share).toFixed(1) + "%";
    table.append(make("tr", "", make("td", "", name), make("td", "number", percent(share)), make("td", "bar", bar)));
  }
  return table;
}

// The text with a number and a word for each [MASK].
function filled(text, words) {
  const line = make("p", "big"), pieces = text.split("[MASK]");
  pieces.forEach((piece, i) => {
    line.append(piece);
    if (i >= words.length) return;
    line.append(make("mark", "", words[i].replace(/^##/, "")));
    if (words.length > 1) line.append(make("sub", "", String(i + 1)));
  });
  return line;
}

function highlighted(context, answer) {
  const start = context.indexOf(answer), line = make("p");
  if (start < 0) return make("p", "big", answer);
  line.append(context.slice(0, start), make("mark", "", answer), context.slice(start + answer.length));
  return line;
}

// A number between that of unrelated texts and that of equal ones, which give it a meaning.
function similarity(value, reference) {
  const shown = [make("p", "big", value.toFixed(2))];
  if (!reference) return [...shown, make("p", "note", "On the scale of the examples that the model was trained on.")];
  const { unrelated, equal, spread } = reference, place = (value - unrelated) / (equal - unrelated);
  if (!(equal - unrelated > 2 * spread)) {
    return [...shown, make("p", "note", `Equal texts get ${equal.toFixed(2)} and unrelated ones ` +
      `${unrelated.toFixed(2)}: this model hardly tells them apart.`)];
  }
  const marker = make("div"), scale = make("div", "scale", marker);
  marker.style.left = 100 * Math.min(1, Math.max(0, place)) + "%";
  const ends = make("div", "ends note", make("span", "", `${unrelated.toFixed(2)}: unrelated texts`),
    make("span", "", `${equal.toFixed(2)}: equal texts`));
  const words = ["not alike", "little alike", "partly alike", "rather alike", "very alike"];
  shown[0].append(": " + words[Math.min(4, Math.max(0, Math.floor(5 * place)))]);
  return [...shown, scale, ends];
}

// ---- the sections ---------------------------------------------------------------------------

onSubmit("masks", async (section, form, model) => {
  const text = form.get("text"), answer = await ask("masks", { model: model.name, text });
  if (model !== chosen()) return;
  const several = answer.masks.length > 1;
  const tables = answer.masks.map((words, i) =>
    bars(words.map((one) => [one.word, one.probability]), several ? `[MASK] ${i + 1}` : ""));
  $(".answer", section).replaceChildren(
    filled(text, answer.masks.map((words) => words[0].word)), make("div", "columns", ...tables));
});

function predicted(answer, parts) {
  const prediction = answer.prediction;
  if ("label" in prediction) {
    const labels = Object.entries(prediction.probabilities).sort((a, b) => b[1] - a[1]);
    return [make("p", "big", prediction.label), bars(labels)];
  }
  if ("choice" in prediction) {
    return [make("p", "big", parts[prediction.choice + 1]), bars(prediction.probabilities.map((share, i) => [parts[i + 1], share]))];
  }
  if ("best" in prediction) {
    const best = prediction.best, shown = [];
    shown.push(prediction.text === "" ? make("p", "big", "no answer in this text") : highlighted(parts[1], prediction.text));
    if (best.length && best[0].probability < .2) shown.push(make("p", "note", "The model is unsure: no answer stands out."));
    shown.push(bars(best.map((one) => [one.text || "(no answer)", one.probability])));
    return shown;
  }
  if ("tags" in prediction) {
    return [make("p", "", ...prediction.words.map((word, i) => {
      const tag = prediction.tags[i], named = tag !== "O";
      return make("span", "word", named ? make("mark", "", word) : word, make("small", "", named ? tag : ""));
    }))];
  }
  const value = prediction.cosine ?? prediction.score;
  if (value !== undefined) return similarity(value, answer.reference);
  return [make("pre", "", JSON.stringify(prediction, null, 1))];
}

onSubmit("predict", async (section, form, model) => {
  const texts = form.getAll("part");
  if (model.form.repeat_last) texts.push(...texts.pop().split("\n"));
  const parts = texts.map((text) => text.trim());
  const answer = await ask("predict", { model: model.name, parts });
  if (model !== chosen()) return;
  const notes = answer.note ? [make("p", "note", answer.note)] : [];
  $(".answer", section).replaceChildren(...predicted(answer, parts.filter((part) => part)), ...notes);
});

// A text between two denoising steps: a box for each mask, and no ends.
const unfinished = (text) => text.replaceAll("[MASK]", "▢").replaceAll("[SEP]", " ").trim();

function showTurns(model) {
  $("#talk .turns").replaceChildren(...(turnsOf.get(model.name) || []).map((turn) => {
    const shown = make("div", turn.own ? "turn own" : "turn", turn.text || "(the model wrote an empty text)");
    if (turn.note) shown.append(make("small", "", turn.note));
    if (turn.steps?.length > 1) {
      const list = make("ol", "", ...turn.steps.map((text) => make("li", "", unfinished(text))));
      shown.append(make("details", "", make("summary", "", "step by step"), list));
    }
    return shown;
  }));
}

onSubmit("talk", async (section, form, model) => {
  const earlier = turnsOf.get(model.name) || [], text = form.get("text").trim();
  const seen = form.get("earlier") ? earlier.map((turn) => turn.text).filter((turn) => turn) : [];
  const fields = { model: model.name, parts: [...seen, text] };
  for (const name of ["denoising_steps", "temperature", "seed"]) fields[name] = Number(form.get(name));
  if (!text) throw new Error("Your text is empty: write something.");
  const answer = await ask("predict", fields);
  turnsOf.set(model.name, [...earlier, { own: true, text }, { text: answer.prediction.text, steps: answer.steps, note: answer.note }]);
  if (model !== chosen()) return;
  showTurns(model);
  $("[name=text]", section).value = "";
  $("[name=text]", section).focus();
});

$("#talk [name=text]").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  event.target.form.requestSubmit();
});

$("#talk .restart").addEventListener("click", () => {
  turnsOf.delete(chosen().name);
  showTurns(chosen());
});

// ---- inside the model -----------------------------------------------------------------------

function contributions(answer) {
  const { label, words, values, sum, before } = answer.contributions;
  // Weak contributions stay pale: the full color means a unit of the logit or more.
  const largest = Math.max(1, ...values.map(Math.abs));
  const spans = words.map((word, i) => {
    const span = make("span", values[i] < 0 ? "token against" : "token", word,
      make("small", "", signed(values[i])));
    return shaded(span, Math.abs(values[i]) / largest);
  });
  const told = [make("h3", "", `What speaks for “${label}”`), make("div", "tokens", ...spans),
    make("p", "note", `Blue speaks for “${label}”, red against it, in logits; together ${signed(sum)}.`)];
  if (before > 0 && Math.abs(sum) < before / 3) {
    told.push(make("p", "", `A row of masks alone already says “${label}” (${signed(before)}), so these words explain little.`));
  }
  return told;
}

function layers(answer) {
  const masks = answer.masks || [], labels = answer.labels || [];
  if (!masks.length && !labels.length) return [];
  const heads = ["after layer", ...labels, ...masks.map((_, i) => masks.length > 1 ? `[MASK] ${i + 1}` : "[MASK]")];
  const rows = answer.layers.map((_, layer) => make("tr", "", make("th", "", String(layer + 1)),
    ...labels.map((_, i) => shaded(make("td", "number", percent(answer.classes[layer][i])), answer.classes[layer][i])),
    ...masks.map((mask) => make("td", "guesses", ...mask[layer].map((one) => make("span", "", `${one.word} ${percent(one.probability)}`))))));
  const table = make("table", "layers", make("tr", "", ...heads.map((name) => make("th", "", name))), ...rows);
  const title = masks.length ? "Guesses after each layer" : "Labels after each layer";
  return [make("h3", "", title), make("p", "note", "What the model would say if it ended there."), make("div", "wide", table)];
}

function drawAttention(section, answer) {
  const { tokens, attention } = answer, share = $(".share", section);
  const told = (from, to) => `“${tokens[from]}” attends to “${tokens[to]}” with ${percent(attention[from][to])}.`;
  const buttons = tokens.map((token, i) => {
    const button = make("button", "token", token, make("small", "", ""));
    button.type = "button";
    const choose = () => buttons.forEach((other, to) => {
      section.token = i;
      other.classList.toggle("chosen", to === i);
      $("small", other).textContent = (100 * attention[i][to]).toFixed(0) + "%";
      shaded(other, Math.sqrt(attention[i][to]));
    });
    for (const event of ["mouseenter", "focus", "click"]) button.addEventListener(event, choose);
    return button;
  });
  $(".attending", section).replaceChildren(...buttons);
  buttons[section.token < tokens.length ? section.token : 1].click();
  const head = make("thead", "", make("tr", "", make("td"), ...tokens.map((token) => make("th", "", token))));
  const body = make("tbody", "", ...tokens.map((token, from) => make("tr", "", make("th", "", token),
    ...tokens.map((_, to) => shaded(make("td"), Math.sqrt(attention[from][to]))))));
  const tell = (event) => {
    const cell = event.target.closest("tbody td");
    if (cell) share.textContent = told(cell.parentElement.sectionRowIndex, cell.cellIndex - 1);
  };
  body.addEventListener("mouseover", tell);
  body.addEventListener("click", tell);
  $(".matrix", section).replaceChildren(head, body);
  share.textContent = "";
}

async function look(section, again) {
  const form = $("form", section), model = chosen();
  const fields = { model: model.name, text: form.elements.text.value, second: form.elements.second.value };
  const where = Object.fromEntries(["layer", "head"].map((name) => [name, Number($(`[name=${name}]`, section).value)]));
  const attention = await ask("attention", again ? { ...section.shown, ...where } : { ...fields, ...where });
  const reasons = again ? null : await ask("explain", fields);
  if (model !== chosen()) return;
  if (reasons) {
    [section.shown, section.token] = [fields, 1];
    $(".reasons", section).replaceChildren(...(reasons.contributions ? contributions(reasons) : []), ...layers(reasons));
  }
  drawAttention(section, attention);
  $(".answer", section).hidden = false;
}

onSubmit("look", (section) => look(section, false));

for (const select of all("#look select")) {
  select.addEventListener("change", async () => {
    const section = $("#look"), error = $(".error", section);
    try {
      await look(section, true);
      error.textContent = "";
    } catch (problem) {
      error.textContent = problem.message;
    }
  });
}

// ---- the model that is chosen ---------------------------------------------------------------

function examplesOf(id, model) { return id === "masks" ? model.mask_examples.map((text) => [text]) : model.form?.examples || []; }

function showExample(id, number) {
  const examples = examplesOf(id, chosen());
  exampleOf.set(id, number);
  $("#" + id + " .example").hidden = examples.length < 2;
  const example = examples[number % Math.max(1, examples.length)] || [];
  all(`#${id} textarea`).forEach((field, i) => { field.value = example[i] || ""; });
}

for (const id of ["masks", "predict", "talk"]) {
  $("#" + id + " .example").addEventListener("click", () => showExample(id, exampleOf.get(id) + 1));
}

function show() {
  const model = chosen(), form = model.form, predict = $("#predict"), talk = $("#talk");
  const told = [form?.title || "Pretrained model", model.step === null ? "" : `trained for ${model.step} steps`,
    `${model.num_layers} layers of width ${model.hidden_size}`, `vocabulary of ${model.vocab_size.toLocaleString("en")} tokens`];
  $("#about").textContent = told.filter((part) => part).join(" · ");
  $("#about").title = model.source;
  $("#masks").hidden = !model.masks;
  predict.hidden = !form || form.generates;
  talk.hidden = !form?.generates;
  for (const section of [predict, talk]) $("h2", section).textContent = form?.title || "";
  $(".fields", predict).replaceChildren(...(form && !form.generates ? form.fields : []).map((name, i, names) => {
    const field = make("textarea"), repeated = form.repeat_last && i === names.length - 1;
    field.name = "part";
    field.rows = repeated ? 4 : 2;
    return make("label", "", name[0].toUpperCase() + name.slice(1) + (repeated ? ", one per line " : " "), field);
  }));
  if (form?.generates) {
    const steps = $("[name=denoising_steps]", talk);
    steps.max = form.most_steps;
    steps.value = form.denoising_steps;
    $("[name=earlier]", talk).checked = form.dialogue;
    showTurns(model);
  }
  for (const id of ["masks", "predict", "talk"]) showExample(id, 0);
  const numbers = (count) => Array.from({ length: count }, (_, i) => new Option(i + 1, i + 1));
  $("#look [name=layer]").replaceChildren(...numbers(model.num_blocks));
  $("#look [name=layer]").value = model.num_blocks;
  $("#look [name=head]").replaceChildren(new Option("mean of all", 0), ...numbers(model.num_heads));
  [$("#look [name=text]").value, $("#look [name=second]").value] = model.look_example;
  for (const answer of all("#masks .answer, #predict .answer")) answer.replaceChildren();
  for (const error of all(".error")) error.textContent = "";
  $("#look .answer").hidden = true;
}

async function begin() {
  models = (await ask("models", {})).models;
  $("#model").replaceChildren(...models.map((model) => new Option(model.name, model.name)));
  $("#model").addEventListener("change", show);
  show();
}

begin().catch((problem) => { $("#about").textContent = problem.message; });
