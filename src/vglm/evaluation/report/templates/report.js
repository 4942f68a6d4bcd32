// Filter, search and page through the answers of each section. Without scripts every answer is shown.
document.documentElement.classList.add("js");
const PAGE = 24;
for (const gallery of document.querySelectorAll(".gallery")) {
  const cards = [...gallery.querySelectorAll("article")];
  const texts = cards.map((card) => card.textContent.toLowerCase());
  const buttons = [...gallery.querySelectorAll("[data-show]")];
  const kinds = gallery.querySelector("select");
  const search = gallery.querySelector("input");
  const count = gallery.querySelector(".count");
  const next = gallery.querySelector(".next");
  let show = "all";
  let limit = PAGE;

  const belongs = (card, name) => name === "all" || (name === "changed" ? "changed" in card.dataset : card.dataset.flip === name);

  function update() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const kind = kinds ? kinds.value : "";
    let found = 0;
    cards.forEach((card, index) => {
      const fits = belongs(card, show) && (!kind || card.dataset.kind === kind) && words.every((word) => texts[index].includes(word));
      card.hidden = !fits || found >= limit;
      if (fits) found += 1;
    });
    count.textContent = found ? `${Math.min(found, limit)} of ${found} shown` : "No answer fits.";
    next.hidden = found <= limit;
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.show === show));
  }

  for (const button of buttons) {
    const total = cards.filter((card) => belongs(card, button.dataset.show)).length;
    button.append(Object.assign(document.createElement("small"), { textContent: total }));
    button.hidden = total === 0 && button.dataset.show !== "all";
    button.addEventListener("click", () => { show = button.dataset.show; limit = PAGE; update(); });
  }
  for (const field of [kinds, search]) if (field) field.addEventListener("input", () => { limit = PAGE; update(); });
  next.addEventListener("click", () => { limit += PAGE; update(); });
  gallery.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
  addEventListener("beforeprint", () => { limit = Infinity; update(); });
  update();
}
