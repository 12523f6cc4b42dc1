"use strict";
// Sort by a click on a heading (or Enter on it): ascending, then descending. Empty cells stay last.
const value = (row, column) => {
  const cell = row.cells[column];
  return cell.dataset.sort === undefined ? cell.textContent.trim() : Number(cell.dataset.sort);
};
const compare = (a, b) =>
  typeof a === "number" && typeof b === "number"
    ? a - b
    : String(a).localeCompare(String(b), "en", { numeric: true });
const empty = (found) => found === "" || Number.isNaN(found);

for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement;
    const body = head.closest("table").tBodies[0];
    const column = head.cellIndex;
    const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of head.parentElement.cells) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
    const rows = [...body.rows].sort((first, second) => {
      const [a, b] = [value(first, column), value(second, column)];
      if (empty(a) || empty(b)) return empty(a) - empty(b);
      return sign * compare(a, b);
    });
    body.append(...rows);
  });
}

const sounds = JSON.parse(document.getElementById("sounds").textContent);
for (const player of document.querySelectorAll("audio[data-clip]")) {
  player.src = sounds[player.dataset.clip];
  player.addEventListener("play", () => {
    for (const other of document.querySelectorAll("audio")) if (other !== player) other.pause();
  });
}

const filters = document.getElementById("filters");
if (filters) {
  const items = [...document.querySelectorAll(".errors > li")];
  const fits = (item, name, wanted) =>
    wanted === "" ||
    item.dataset[name] === wanted ||
    (name === "speaker" && item.dataset.predicted === wanted);
  const apply = () => {
    const wanted = [...new FormData(filters)];
    for (const item of items) item.hidden = !wanted.every(([name, text]) => fits(item, name, text));
    const left = items.filter((item) => !item.hidden).length;
    document.getElementById("shown").textContent = `${left} of ${items.length} shown`;
  };
  filters.addEventListener("change", apply);
  filters.addEventListener("submit", (event) => event.preventDefault());
  apply(); // a browser may keep a choice when the page is loaded again
}

// On paper every meeting is open; afterwards it is as it was.
const folded = [];
window.addEventListener("beforeprint", () => {
  for (const one of document.querySelectorAll("details.card:not([open])")) {
    one.open = true;
    folded.push(one);
  }
});
window.addEventListener("afterprint", () => {
  for (const one of folded.splice(0)) one.open = false;
});
