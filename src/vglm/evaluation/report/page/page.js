// The language switch. Sections' scripts stand before this one; they read `side` and listen to the event `language`.
const root = document.documentElement;
const button = document.getElementById("switch");
let side = 0; // 0: English, 1: Chinese

function speak(zh) {
  side = zh ? 1 : 0;
  root.lang = zh ? "zh-Hans" : "en";
  root.classList.toggle("in-zh", zh);
  button.textContent = zh ? "English" : "中文";
  for (const each of document.querySelectorAll("[data-zh]")) {
    const text = each.dataset[zh ? "zh" : "en"];
    if (each.dataset.attribute) each.setAttribute(each.dataset.attribute, text);
    else each.textContent = text;
  }
  document.dispatchEvent(new Event("language"));
}

// A table that is wider than its frame says so, and can be scrolled with the keyboard.
function hint(frame) {
  const isWide = frame.scrollWidth > frame.clientWidth + 1;
  frame.classList.toggle("wide", isWide);
  if (isWide) frame.tabIndex = 0;
  else frame.removeAttribute("tabindex");
}
const frames = new ResizeObserver((all) => all.forEach(({ target }) => hint(target)));
for (const frame of document.querySelectorAll(".scroll")) frames.observe(frame);
document.addEventListener("language", () => document.querySelectorAll(".scroll").forEach(hint));

root.classList.add("js");
button.hidden = false;
button.addEventListener("click", () => speak(side === 0));
addEventListener("beforeprint", () => {
  for (const each of document.querySelectorAll("details.printed")) each.open = true;
});
speak((navigator.language || "").toLowerCase().startsWith("zh") || location.hash === "#zh");
