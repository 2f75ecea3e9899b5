// What every page needs: keys, dialogs, waiting times, uploads, questions before something final. No page depends on it.

const body = document.body;

// --- keys: single letters only while they are switched on, never while somebody types (WCAG 2.1.4) ---
function keysOn() {
  try { return localStorage.getItem("likeness.keys") !== "off"; } catch { return true; }
}

function isTyping(target) {
  return target instanceof HTMLElement && (target.matches("input:not([type=radio], [type=checkbox], [type=range]), textarea, select") || target.isContentEditable);
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target) || document.querySelector("dialog[open]")) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (key === "?") { open("keys"); event.preventDefault(); return; }
  if (!keysOn()) return;
  const element = document.querySelector(`[data-key="${CSS.escape(key)}"]`);
  if (element) {
    if (element.matches("input[type=radio], textarea, input, select")) { element.focus(); if (element.type === "radio") element.checked = true; element.dispatchEvent(new Event("change", { bubbles: true })); }
    else if (!element.disabled) element.click();
    event.preventDefault();
    return;
  }
  if (!document.dispatchEvent(new CustomEvent("console:key", { detail: key, cancelable: true }))) event.preventDefault();
});

function open(id) {
  const dialog = document.getElementById(id);
  if (dialog instanceof HTMLDialogElement && !dialog.open) dialog.showModal();
}

for (const button of document.querySelectorAll("[data-open]")) button.addEventListener("click", () => open(button.dataset.open));
for (const button of document.querySelectorAll("[data-close]")) button.addEventListener("click", () => button.closest("dialog").close());

for (const box of document.querySelectorAll("[data-keys-switch]")) {
  box.checked = keysOn();
  box.addEventListener("change", () => {
    try { localStorage.setItem("likeness.keys", box.checked ? "on" : "off"); } catch { /* it then holds for this page only */ }
  });
}

// --- minimum viewing time: the server refuses too; the button says how long is left ---
for (const button of document.querySelectorAll("[data-wait]")) {
  const words = button.querySelector("[data-words]");
  const after = words.textContent;
  const until = performance.now() + Number(button.dataset.wait) * 1000;
  const tick = () => {
    const left = Math.ceil((until - performance.now()) / 1000);
    button.disabled = left > 0;
    words.textContent = left > 0 ? `Look for ${left} s more` : after;
    if (left > 0) setTimeout(tick, 200);
  };
  tick();
}

// --- the session's end: a word before it comes, and what was written on the page stays ---
// What is left is the server's to say: another window may have been used, or have ended it. Asking is no use of it.
const idle = document.querySelector("[data-idle]");
if (idle) {
  const EVERY_S = 300;
  const WARN_S = Math.min(120, Number(idle.dataset.idle) / 2);
  const link = idle.querySelector("a");
  let timer = 0;
  let endMs = Date.now() + Number(idle.dataset.idle) * 1000;
  const later = (seconds) => { clearTimeout(timer); timer = setTimeout(look, Math.min(seconds, EVERY_S) * 1000); };
  const look = async () => {
    const answer = await fetch("/console/session", { headers: { accept: "application/json" } }).catch(() => null);
    const found = await answer?.json().catch(() => null);
    if (typeof found?.left_s !== "number") {
      // Nobody answers. Past its end the page is left all the same: pictures do not stay on a screen nobody sits at.
      if (Date.now() > endMs) location.replace("/console/");
      else later(10);
      return;
    }
    if (found.left_s <= 0) { location.replace(`/console/sign-in?ended=${encodeURIComponent(found.ended || 1)}`); return; }
    endMs = Date.now() + found.left_s * 1000;
    idle.hidden = found.left_s > WARN_S;
    idle.querySelector("[data-stay]").hidden = !found.can_stay;
    idle.querySelector("[data-last]").hidden = found.can_stay;
    later(idle.hidden ? found.left_s - WARN_S : Math.min(found.left_s + 1, 15));
  };
  link.addEventListener("click", async (event) => {
    event.preventDefault();
    await fetch("/console/guide").catch(() => null);
    await look();
  });
  // A machine that slept, or a window long in the background, counts no seconds.
  document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
  later(Number(idle.dataset.idle) - WARN_S);
}

// --- nothing is sent twice ---
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.dataset.sent) { event.preventDefault(); return; }
  form.dataset.sent = "yes";
  addEventListener("pageshow", () => { delete form.dataset.sent; }, { once: true });
});

// --- uploads: choosing, dragging, pasting ---
// Pictures gather in one list; what a phone's camera took joins it; a film has a field of its own.
for (const drop of document.querySelectorAll("[data-drop]")) {
  const input = drop.querySelector("[data-pictures]");
  const camera = drop.querySelector("[data-camera]");
  const film = drop.querySelector("[data-film]");
  const isFilm = (file) => Boolean(film) && (file.type.startsWith("video/") || /\.(mp4|mov|m4v|3gp|mkv|webm|avi|flv|mpe?g|ts)$/i.test(file.name));
  const list = document.querySelector("[data-previews]");
  const say = document.querySelector("[data-upload-status]");
  let files = [];

  const show = () => {
    const transfer = new DataTransfer();
    files.forEach((file) => transfer.items.add(file));
    input.files = transfer.files;
    const films = film ? [...film.files] : [];
    list.replaceChildren(
      ...files.map((file, index) => preview(file, () => { files.splice(index, 1); show(); input.focus(); })),
      ...films.map((file) => preview(file, () => { film.value = ""; show(); film.focus(); })),
    );
    const told = [];
    if (files.length) told.push(`${files.length} ${files.length === 1 ? "picture" : "pictures"} chosen.`);
    if (films.length) told.push("A film chosen.");
    say.textContent = told.join(" ") || "No file chosen yet.";
  };
  const add = (more) => {
    const [films, pictures] = [[...more].filter(isFilm), [...more].filter((file) => !isFilm(file))];
    files = [...files, ...pictures].slice(0, Number(drop.dataset.drop));
    if (films.length) {
      const transfer = new DataTransfer();
      transfer.items.add(films[0]);
      film.files = transfer.files;
    }
    show();
  };
  const preview = (file, takeOut) => {
    const item = document.createElement("li");
    if (file.type.startsWith("image/") && file.type !== "image/svg+xml") {
      const image = document.createElement("img");
      image.alt = "";
      image.src = URL.createObjectURL(file);
      image.addEventListener("load", () => URL.revokeObjectURL(image.src));
      item.append(image);
    }
    const name = document.createElement("span");
    name.textContent = `${file.name || "pasted picture"}, ${(file.size / 1048576).toFixed(1)} MB`;
    const remove = document.createElement("button");
    remove.type = "button";
    remove.className = "compact";
    remove.textContent = "Remove";
    remove.setAttribute("aria-label", `Remove ${file.name || "pasted picture"}`);
    remove.addEventListener("click", takeOut);
    item.append(name, remove);
    return item;
  };
  input.addEventListener("change", () => add(input.files));
  camera?.addEventListener("change", () => { const taken = [...camera.files]; camera.value = ""; add(taken); });
  film?.addEventListener("change", show);
  drop.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => { event.preventDefault(); drop.classList.remove("over"); add(event.dataTransfer.files); });
  addEventListener("paste", (event) => { if (event.clipboardData?.files.length) { event.preventDefault(); add(event.clipboardData.files); } });
}

// --- what goes on by itself is looked at again, unless somebody is about to do something on the page ---
for (const part of document.querySelectorAll("[data-refresh]")) setTimeout(() => { location.replace(location.pathname); }, Number(part.dataset.refresh) * 1000);

// --- a token from its file ---
const tokenFile = document.querySelector("[data-token-file]");
if (tokenFile) {
  tokenFile.addEventListener("change", async () => {
    const file = tokenFile.files[0];
    if (file && file.size < 16384) document.querySelector("[name=token]").value = (await file.text()).trim();
  });
}

// --- faces of a picture: who is ticked is marked in it, and a click on a face ticks it ---
const faces = [...document.querySelectorAll("rect[data-face]")].map((rect) => {
  const inputs = [...document.querySelectorAll(`input[name=face][value="${rect.dataset.face}"]`)];
  const [radio, box] = ["radio", "checkbox"].map((type) => inputs.find((input) => input.type === type));
  if (radio || box) rect.classList.add("open");
  rect.addEventListener("click", () => (box || radio)?.click());
  return { rect, radio, box };
});
document.addEventListener("change", (event) => {
  if (event.target.name !== "face") return;
  for (const { rect, radio, box } of faces) {
    if (radio) rect.classList.toggle("chosen", radio.checked);
    if (box) rect.classList.toggle("picked", box.checked);
  }
});

// --- crop by hand: the numbers stay the truth ---
for (const stage of document.querySelectorAll("[data-crop]")) {
  const image = stage.querySelector("img");
  const fields = ["x", "y", "width", "height"].map((name) => document.querySelector(`[data-crop-${name}]`));
  const frame = stage.querySelector("rect");
  let from = null;
  const at = (event) => {
    const box = image.getBoundingClientRect();
    const scale = Number(stage.dataset.crop) / box.width;
    return { x: Math.max(0, (event.clientX - box.left) * scale), y: Math.max(0, (event.clientY - box.top) * scale) };
  };
  image.draggable = false;
  image.addEventListener("pointerdown", (event) => { from = at(event); image.setPointerCapture(event.pointerId); });
  image.addEventListener("pointermove", (event) => {
    if (!from || fields.some((field) => !field)) return;
    const to = at(event);
    const values = [Math.min(from.x, to.x), Math.min(from.y, to.y), Math.abs(to.x - from.x), Math.abs(to.y - from.y)].map(Math.round);
    fields.forEach((field, index) => { field.value = String(values[index]); });
    if (frame) ["x", "y", "width", "height"].forEach((name, index) => frame.setAttribute(name, String(values[index])));
  });
  image.addEventListener("pointerup", () => { from = null; });
}

body.dataset.live = "yes";
