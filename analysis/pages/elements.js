"use strict";
// What every page's script begins with.
const byId = (id) => document.getElementById(id);

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function options(select, titles) {
  select.replaceChildren(...titles.map(([value, textContent]) => element("option", { value, textContent })));
}

function themes() {
  const button = byId("theme"), dark = matchMedia("(prefers-color-scheme: dark)");
  button.hidden = false;
  button.addEventListener("click", () => {
    const { dataset } = document.documentElement;
    dataset.theme = (dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark" ? "light" : "dark";
  });
}
