// Masks from doubtful to sure, a page of cards at a time; pictures are parsed when the first of their part is shown.
const about = JSON.parse(byId("about").textContent);
const parts = document.querySelectorAll("script.part"), parsed = new Map();
const slot = `mal-review:${about.sha256}`; // every page from the disk has the same storage
const keys = { 1: "keep", " ": "keep", 2: "reject", 3: "box", 0: "", Backspace: "" };
const titles = { keep: "Keep", reject: "Reject", box: "Box" };
const perPage = 60;
const choices = new Map(stored());
const items = about.items.map(([id, category, value], place) => ({ id, category, value, place }));
let shown = [], page = 0;

function stored() {
  try {
    return Object.entries(JSON.parse(localStorage.getItem(slot) ?? "{}")).filter(([, choice]) => Object.hasOwn(titles, choice));
  } catch {
    return [];
  }
}

function store() {
  try {
    localStorage.setItem(slot, JSON.stringify(Object.fromEntries(choices)));
  } catch {
    byId("unkept").hidden = false;
  }
}

function details({ place }) {
  const part = Math.floor(place / about.part);
  if (!parsed.has(part)) parsed.set(part, JSON.parse(parts[part].textContent));
  return parsed.get(part)[place % about.part];
}

function drawn(name, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function picture(item, name) {
  const { crop, unread, image, size: [width, height], box: [left, top, right, bottom], path } = details(item);
  if (!crop) return element("div", { className: "picture" }, element("span", { className: "unread", textContent: unread }));
  const few = Math.max(width, height) < 80 ? " few" : "";
  const view = element("div", { className: `view ${width < height ? "high" : "wide"}${few}` });
  view.style.setProperty("--ratio", width / height);
  view.append(
    element("img", { alt: `Crop of ${image} around a ${name}`, decoding: "async", src: `data:image/webp;base64,${crop}` }),
    drawn("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" },
      drawn("rect", { x: left, y: top, width: right - left, height: bottom - top }),
      drawn("path", { class: "dark", d: path }), drawn("path", { class: "light", d: path })),
  );
  return element("div", { className: "picture" }, view);
}

function card(item) {
  const name = about.categories[item.category] ?? `category ${item.category}`;
  const { why, image, texts } = details(item), value = item.value === null ? "–" : item.value.toFixed(2);
  const entry = element("li", { tabIndex: -1, title: `${image}, annotation ${item.id}` });
  const buttons = Object.entries(titles).map(([choice, textContent]) => {
    const button = element("button", { type: "button", tabIndex: -1, textContent });
    button.dataset.choice = choice;
    return button;
  });
  entry.item = item;
  entry.ariaLabel = [name, value, ...texts, ...why].join(", ");
  entry.append(picture(item, name),
    element("div", { className: "name" }, element("bdi", { textContent: name }), element("b", { textContent: value })),
    ...texts.map((textContent) => element("q", { className: "text", title: textContent }, element("bdi", { textContent }))),
    element("div", { className: "why", textContent: why.join("; ") }),
    element("div", { className: "choices" }, ...buttons));
  mark(entry);
  return entry;
}

function mark(entry) {
  const choice = choices.get(entry.item.id) ?? "";
  entry.dataset.choice = choice;
  for (const button of entry.querySelectorAll(".choices button")) {
    button.ariaPressed = String(button.dataset.choice === choice);
  }
}

function count() {
  const many = { keep: 0, reject: 0, box: 0 };
  for (const choice of choices.values()) many[choice] += 1;
  byId("done").textContent =
    `${choices.size} of ${items.length} decided: ${many.keep} kept, ${many.reject} rejected, ${many.box} filled`;
  byId("export").disabled = !choices.size;
}

function turn(to, at = 0, scroll = true) {
  page = to;
  const from = page * perPage, entries = shown.slice(from, from + perPage).map(card);
  byId("cards").replaceChildren(...entries);
  byId("where").textContent = shown.length ? `${from + 1}–${from + entries.length} of ${shown.length}` : "0";
  byId("back").disabled = page === 0;
  byId("forth").disabled = from + perPage >= shown.length;
  byId("nothing").hidden = shown.length > 0;
  if (entries.length) focus(entries.at(at), scroll);
}

function filter(scroll) {
  const category = byId("class").value, state = byId("state").value;
  shown = items.filter((item) => {
    const choice = choices.get(item.id) ?? "open";
    return (category === "" || item.category === category) && (state === "" || choice === state);
  });
  turn(0, 0, scroll);
}

function focus(entry, scroll = true) {
  for (const other of byId("cards").querySelectorAll("li[tabindex='0']")) other.tabIndex = -1;
  entry.tabIndex = 0;
  if (document.activeElement?.tagName !== "SELECT") entry.focus({ preventScroll: !scroll });
}

function step(by) {
  const entries = [...byId("cards").children];
  if (!entries.length) return;
  const to = entries.findIndex((entry) => entry.tabIndex === 0) + by;
  if (to >= 0 && to < entries.length) focus(entries[to]);
  else if (to < 0 && page > 0) turn(page - 1, -1);
  else if (to >= entries.length && (page + 1) * perPage < shown.length) turn(page + 1);
  else focus(entries[to < 0 ? 0 : entries.length - 1]);
}

function choose(entry, choice) {
  if (choice) choices.set(entry.item.id, choice);
  else choices.delete(entry.item.id);
  store();
  mark(entry);
  count();
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("select, #tools button, #theme")) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const columns = getComputedStyle(byId("cards")).gridTemplateColumns.split(" ").length;
  const steps = { j: 1, k: -1, ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns };
  const current = byId("cards").querySelector("li[tabindex='0']");
  if (key in steps) step(steps[key]);
  else if (key === "o") byId("cards").classList.toggle("plain");
  else if (key in keys && current) {
    choose(current, keys[key]);
    if (keys[key]) step(1);
  } else return;
  event.preventDefault();
}

function clicked(event) {
  const entry = event.target.closest("li"), button = event.target.closest(".choices button");
  if (!entry) return;
  if (button) choose(entry, choices.get(entry.item.id) === button.dataset.choice ? "" : button.dataset.choice);
  focus(entry);
}

function save() {
  const content = { labels: about.file, labels_sha256: about.sha256, choices: Object.fromEntries(choices) };
  const address = URL.createObjectURL(new Blob([JSON.stringify(content, null, 1)], { type: "application/json" }));
  element("a", { href: address, download: `${about.file.replace(/\.json$/i, "")}_choices.json` }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60000);
}

function start() {
  const many = new Map();
  for (const { category } of items) many.set(category, (many.get(category) ?? 0) + 1);
  const named = [...many].map(([id, n]) => [id, about.categories[id] ?? `category ${id}`, n]);
  named.sort((a, b) => a[1].localeCompare(b[1]));
  options(byId("class"), [["", `all (${items.length})`], ...named.map(([id, name, n]) => [id, `${name} (${n})`])]);
  byId("tools").hidden = false;
  byId("tools").addEventListener("submit", (event) => event.preventDefault());
  byId("tools").addEventListener("change", () => filter(true));
  byId("back").addEventListener("click", () => turn(page - 1));
  byId("forth").addEventListener("click", () => turn(page + 1));
  byId("export").addEventListener("click", save);
  byId("cards").addEventListener("click", clicked);
  document.addEventListener("keydown", pressed);
  count();
  filter(false);
}

themes();
start();
