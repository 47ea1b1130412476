"use strict";
// Filters: one machine or all, and any suites. Everything is shown where scripts do not run.
const form = document.querySelector(".filters"), machine = form.querySelector("select");
const boxes = [...form.querySelectorAll("input")];
function update() {
  const suites = new Set(boxes.filter(box => box.checked).map(box => box.value));
  for (const section of document.querySelectorAll("section.machine"))
    section.hidden = machine.value !== "" && section.dataset.machine !== machine.value;
  for (const section of document.querySelectorAll("section.suite")) section.hidden = !suites.has(section.dataset.suite);
}
form.addEventListener("change", update);
form.addEventListener("click", event => {
  if (event.target.tagName !== "BUTTON") return;
  for (const box of boxes) box.checked = event.target.value === "all";
  update();
});
update();
