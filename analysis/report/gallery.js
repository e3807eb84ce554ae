// The gallery: a list item an instance. Only those near the screen hold pictures, so a thousand cost what a screenful does.
const sizes = ["S", "M", "L"];
const filled = new Map(); // list item → labeler whose mask it shows
let sets = [], set = null, shown = [], labeler = 0, opened = 0, line = 50;

const near = new IntersectionObserver((changes) => {
  for (const { target, isIntersecting } of changes) isIntersecting ? fill(target) : empty(target);
}, { rootMargin: "800px 0px" });

function score(value) {
  return value === null ? "–" : value.toFixed(2);
}

function picture(item, by) {
  const few = Math.max(item.width, item.height) < 96 ? " few" : "";
  const stack = element("span", { className: `stack ${item.width < item.height ? "high" : "wide"}${few}` });
  stack.style.setProperty("--ratio", item.width / item.height);
  const image = (kind, type, data, alt) =>
    element("img", { className: kind, alt, decoding: "async", src: `data:image/${type};base64,${data}` });
  const box = element("span", { className: "box" });
  [box.style.left, box.style.top, box.style.width, box.style.height] = item.box.map((share) => `${share}%`);
  stack.append(image("crop", "webp", item.crop, `Crop of ${item.image} around a ${set.categories[item.category]}`));
  stack.append(image("human", "png", item.human, ""));
  if (item.masks[by] !== null) stack.append(image("pseudo", "png", item.masks[by], ""));
  stack.append(box, element("span", { className: "line" }));
  return element("span", { className: "frame" }, stack);
}

function fill(entry) {
  if (filled.get(entry) === labeler) return;
  filled.set(entry, labeler);
  wipe(entry, line);
  const { item } = entry, name = set.categories[item.category];
  const flag = item.flagged[labeler] ? ", skipped by the labeler" : "";
  const card = entry.firstElementChild;
  card.setAttribute("aria-label", `${name}, size ${item.size}, IoU ${score(item.iou[labeler])}${flag}`);
  const caption = element("span", { className: "caption" }, element("span", { textContent: `${name} ${item.size}` }),
    element("b", { textContent: score(item.iou[labeler]) + (flag && " *"), title: `IoU${flag}` }));
  card.replaceChildren(picture(item, labeler), caption);
}

function empty(entry) {
  if (!filled.delete(entry)) return;
  entry.firstElementChild.replaceChildren();
}

function entries(part) {
  return part.items.map((item) => {
    const entry = element("li", {}, element("button", { type: "button", className: "card", tabIndex: -1 }));
    entry.item = item;
    return entry;
  });
}

function choose(place) {
  set = sets[place];
  set.entries ??= entries(set);
  labeler = 0;
  options(byId("labeler"), set.labelers.map((name, i) => [i, name]));
  const many = {};
  for (const { category } of set.items) many[category] = (many[category] ?? 0) + 1;
  const named = Object.entries(set.categories).sort((a, b) => a[1].localeCompare(b[1]));
  options(byId("category"), [["", `all (${set.items.length})`], ...named.map(([id, name]) => [id, `${name} (${many[id]})`])]);
  for (const size of sizes) {
    const count = set.items.filter((item) => item.size === size).length;
    byId(`size-${size}`).parentElement.querySelector("span").textContent = `(${count})`;
  }
  show();
}

const orders = {
  worst: (a, b) => a.iou[labeler] - b.iou[labeler] || a.id - b.id,
  best: (a, b) => b.iou[labeler] - a.iou[labeler] || a.id - b.id,
  large: (a, b) => b.area - a.area || a.id - b.id,
  file: (a, b) => a.id - b.id,
};

function show() {
  labeler = Number(byId("labeler").value);
  const category = byId("category").value, low = Number(byId("low").value), high = Number(byId("high").value);
  const chosen = sizes.filter((size) => byId(`size-${size}`).checked), order = orders[byId("order").value];
  byId("low-value").textContent = low.toFixed(2);
  byId("high-value").textContent = high.toFixed(2);
  byId("wipe-name").textContent = set.labelers[labeler];
  shown = set.entries.filter(({ item }) => {
    const iou = item.iou[labeler];
    return iou !== null && iou >= low && iou <= high && chosen.includes(item.size) &&
      (category === "" || String(item.category) === category);
  });
  shown.sort((a, b) => order(a.item, b.item));
  near.disconnect();
  const kept = new Set(shown);
  for (const entry of [...filled.keys()]) if (!kept.has(entry)) empty(entry);
  for (const entry of set.entries) entry.firstElementChild.tabIndex = -1;
  if (shown.length) shown[0].firstElementChild.tabIndex = 0;
  byId("cards").replaceChildren(...shown);
  for (const entry of shown) near.observe(entry);
  const mean = shown.reduce((sum, { item }) => sum + item.iou[labeler], 0) / shown.length;
  byId("count").textContent = `${shown.length} of ${set.items.length}` + (shown.length ? `, mean IoU ${mean.toFixed(3)}` : "");
}

function focus(place) {
  const entry = shown[Math.max(0, Math.min(place, shown.length - 1))];
  for (const { firstElementChild } of shown) if (firstElementChild.tabIndex === 0) firstElementChild.tabIndex = -1;
  entry.firstElementChild.tabIndex = 0;
  entry.firstElementChild.focus();
}

function move(event) {
  const at = shown.indexOf(event.target.closest("li"));
  const columns = getComputedStyle(byId("cards")).gridTemplateColumns.split(" ").length;
  const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, Home: -at, End: shown.length };
  if (at < 0 || !(event.key in steps)) return;
  event.preventDefault();
  focus(at + steps[event.key]);
}

function facts(item, by) {
  const rows = set.labelers.map((name, i) => {
    const button = element("button", { type: "button", textContent: name, ariaPressed: String(i === by) });
    button.addEventListener("click", () => enlarge(item, i));
    return element("tr", {}, element("th", { scope: "row" }, button),
      element("td", { textContent: score(item.iou[i]) }), element("td", { textContent: score(item.boundary[i]) }));
  });
  const head = ["masks by", "IoU", "boundary IoU"].map((textContent) => element("th", { scope: "col", textContent }));
  const table = element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows));
  const words = [`Image ${item.image}, annotation ${item.id}, box of ${item.area} px² (${item.size})`, item.credit];
  if (item.flagged[by]) words.push("skipped by the labeler: its box stands for a mask");
  return [table, element("p", { className: "soft", textContent: words.filter(Boolean).join("; ") })];
}

function enlarge(item, by) {
  const again = byId("large-facts").contains(document.activeElement);
  byId("large-title").textContent =
    `${set.categories[item.category]}, IoU ${score(item.iou[by])} (${set.labelers[by]}), ${opened + 1} of ${shown.length}`;
  byId("large-picture").replaceChildren(picture(item, by));
  byId("large-facts").replaceChildren(...facts(item, by));
  if (again) byId("large-facts").querySelectorAll("button")[by].focus();
}

function open(place) {
  opened = (place + shown.length) % shown.length;
  enlarge(shown[opened].item, labeler);
  if (!byId("large").open) byId("large").showModal();
}

function wipe(around, value) {
  around.style.setProperty("--wipe", `${value}%`);
}

function hover(event) {
  const stack = event.pointerType === "mouse" && event.target.closest(".stack");
  if (!stack) return;
  const { left, width } = stack.getBoundingClientRect();
  wipe(stack, (100 * (event.clientX - left) / width).toFixed(1));
  stack.addEventListener("pointerleave", () => stack.style.removeProperty("--wipe"), { once: true });
}

function start() {
  sets = JSON.parse(byId("gallery-data").textContent);
  if (!sets.length) return;
  byId("browser").hidden = false;
  options(byId("set"), sets.map((part, i) => [i, part.name]));
  byId("set-field").hidden = sets.length === 1;
  byId("set").addEventListener("change", () => choose(Number(byId("set").value)));
  byId("filters").addEventListener("input", (event) => event.target.id !== "set" && show());
  byId("filters").addEventListener("reset", () => setTimeout(() => choose(Number(byId("set").value))));
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("wipe").addEventListener("input", () => {
    line = byId("wipe").value;
    for (const entry of filled.keys()) wipe(entry, line);
  });
  byId("large-wipe").addEventListener("input", () => wipe(byId("large-picture"), byId("large-wipe").value));
  byId("cards").addEventListener("keydown", move);
  byId("cards").addEventListener("pointermove", hover);
  byId("large-picture").addEventListener("pointermove", hover);
  byId("cards").addEventListener("click", (event) => {
    const at = shown.indexOf(event.target.closest("li"));
    if (at >= 0) open(at);
  });
  byId("previous").addEventListener("click", () => open(opened - 1));
  byId("next").addEventListener("click", () => open(opened + 1));
  byId("close").addEventListener("click", () => byId("large").close());
  byId("large").addEventListener("close", () => focus(opened));
  addEventListener("beforeprint", () => shown.slice(0, 24).forEach(fill));
  choose(0);
}

themes();
start();
