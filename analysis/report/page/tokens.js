"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const spans = Array.from(document.querySelectorAll("#text span"));
  const about = document.getElementById("about");
  const placeOf = value => Math.max(-1, Math.min(1, (value - data.centre) / data.reach));
  const valuesOf = layer => layer === "mean" ? data.mean : data.layers[Number(layer)];
  const tint = layer => {
    const values = valuesOf(layer);
    spans.forEach((span, n) => span.style.setProperty("--t", placeOf(values[n]).toFixed(3)));
  };
  document.querySelectorAll("input[name=layer]").forEach(each =>
    each.addEventListener("change", () => tint(each.value)));
  let at = -1;
  const add = (parent, name, words) => {
    const node = document.createElement(name);
    node.textContent = words;
    parent.append(node);
    return node;
  };
  const show = n => {
    if (n < 0 || n >= spans.length) return;
    if (at >= 0) spans[at].classList.remove("on");
    at = n;
    spans[n].classList.add("on");
    about.textContent = "";
    const words = add(about, "div", "");
    add(words, "b", JSON.stringify(spans[n].textContent));
    add(words, "div", `token ${n + 1}, position ${data.positions[n]}` + (data.tags[n] ? `, ${data.tags[n]}` : ""));
    add(words, "div", `${data.name} ${data.mean[n].toFixed(3)}, mean over layers`);
    const layers = add(about, "div", "");
    layers.className = "layers";
    const most = Math.max(1, ...data.layers.map(row => row[n]));
    data.layers.forEach((row, layer) => {
      const cell = add(layers, "div", "");
      add(cell, "span", row[n].toFixed(3));
      add(cell, "i", "").style.height = `${(2.5 * row[n] / most).toFixed(2)}rem`;
      add(cell, "span", String(layer + 1));
    });
  };
  document.getElementById("text").addEventListener("mouseover", event => {
    const n = spans.indexOf(event.target);
    if (n >= 0) show(n);
  });
  document.getElementById("text").addEventListener("keydown", event => {
    const step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
    if (!step) return;
    event.preventDefault();
    show(Math.max(0, Math.min(spans.length - 1, at + step)));
    spans[at].scrollIntoView({block: "nearest"});
  });
})();
