"use strict";
// Sorts tables. Numbers are sorted by their full value, text by the alphabet, and n/a always comes last.
for (const button of document.querySelectorAll("table .sort")) {
  button.addEventListener("click", () => {
    const head = button.closest("th");
    const table = head.closest("table");
    const column = Number(button.dataset.column);
    const descending = head.getAttribute("aria-sort") === "ascending";
    for (const other of table.querySelectorAll("thead th")) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const key = (row) => {
      const cell = row.cells[column];
      if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
      const text = cell.textContent.trim();
      return text === "n/a" ? null : text;
    };
    const rows = [...table.tBodies[0].rows].map((row) => [key(row), row]);
    rows.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
      return descending ? -order : order;
    });
    table.tBodies[0].append(...rows.map(([, row]) => row));
  });
}

// Shows only the rows of a table that hold a text, in whichever cell: a name, a side, or a direction.
for (const field of document.querySelectorAll("input.filter")) {
  field.addEventListener("input", () => {
    const wanted = field.value.trim().toLowerCase();
    const rows = [...document.querySelector(`table[data-view="${field.dataset.view}"]`).tBodies[0].rows];
    for (const row of rows) {
      row.hidden = wanted !== "" && ![...row.cells].some((cell) => cell.textContent.toLowerCase().includes(wanted));
    }
    const left = rows.filter((row) => !row.hidden).length;
    document.getElementById(`${field.dataset.view}-shown`).textContent = wanted ? `${left} of ${rows.length} rows` : "";
  });
}
