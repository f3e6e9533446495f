"use strict";
const figures = JSON.parse(document.getElementById("figures").textContent);

function ink(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function axis(more) {
  const grid = ink("--line");
  return Object.assign({}, more, {
    gridcolor: grid, linecolor: grid, zerolinecolor: grid, tickcolor: grid, automargin: true,
  });
}

function themed(layout) {
  return Object.assign({}, layout, {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: ink("--ink"), family: getComputedStyle(document.body).fontFamily, size: 12 },
    hoverlabel: { bgcolor: ink("--panel"), bordercolor: ink("--line"), font: { color: ink("--ink") } },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: ink("--soft"), activecolor: ink("--ink") },
    xaxis: axis(layout.xaxis),
    yaxis: axis(layout.yaxis),
  });
}

function draw(ids = Object.keys(figures)) {
  for (const id of ids) {
    const figure = figures[id];
    const config = {
      responsive: true,
      displaylogo: false,
      modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
      toImageButtonOptions: { format: "svg", filename: id },
    };
    Plotly.react(id, figure.data, themed(figure.layout), config);
  }
}

function toggle(button) {
  const shown = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", String(shown));
  const ids = [...button.closest("figure").querySelectorAll(".plot")].map((plot) => plot.id);
  for (const trace of ids.flatMap((id) => figures[id].data)) {
    if (trace.meta === button.dataset.name) trace.visible = shown;
  }
  draw(ids);
}

draw();
for (const button of document.querySelectorAll(".legend button")) {
  button.addEventListener("click", () => toggle(button));
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw());
addEventListener("beforeprint", () => {
  for (const each of document.querySelectorAll("details")) each.open = true;
});
