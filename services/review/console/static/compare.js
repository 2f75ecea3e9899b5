// The comparison bench: two pictures in one frame, looked at together. Without this script the page still shows both
// pictures side by side and every judgement can be made; everything here is for the eye and the hand.

import { EYE_DISTANCE, Picture, View, apply, clamp, draw, invert } from "./plate.js";

const LANDMARK_NAMES = ["right eye", "left eye", "nose tip", "right mouth corner", "left mouth corner"];
const SPLIT_GRIP = 14; // pixels to either side of the split line by which it is taken hold of
const benches = [...document.querySelectorAll("[data-bench]")];
benches.forEach(start);

// Of a long list, the part about the candidate that is looked at.
for (const strip of document.querySelectorAll(".strip")) {
  const here = strip.querySelector("[aria-current]")?.getBoundingClientRect();
  const box = strip.getBoundingClientRect();
  if (here) strip.scrollBy(here.left + here.width / 2 - box.left - box.width / 2, here.top + here.height / 2 - box.top - box.height / 2);
}

// Keys go to the bench that is worked at; else to the first.
function isWorkedAt(root) { return root === (benches.find((one) => one.contains(document.activeElement)) || benches[0]); }

function start(root) {
  const find = (name) => root.querySelector(`[data-${name}]`);
  const panes = { probe: find("pane-probe"), candidate: find("pane-candidate"), both: find("pane-both") };
  const plates = find("plates");
  const status = find("status");
  const pictures = {
    probe: new Picture(find("image-probe"), landmarksOf(find("image-probe"))),
    candidate: new Picture(find("image-candidate"), landmarksOf(find("image-candidate"))),
  };
  const views = { probe: new View(), candidate: new View() };
  const state = {
    mode: remembered("mode", "side"), tool: "pan", linked: remembered("linked", "yes") === "yes",
    aligned: remembered("aligned", "yes") === "yes", opacity: 0.5, split: 0.5, blinkOn: false, blinkTimer: 0,
    cursor: { x: 0, y: -0.05 }, landmark: "right eye", last: null,
  };
  let drawing = 0;

  // The detector's landmarks come after the picture, so that nobody waits for them.
  async function learnLandmarks(picture, address) {
    try {
      const found = await asked(address);
      LANDMARK_NAMES.forEach((name, index) => {
        if (found[index] && !picture.landmarks[name]) picture.landmarks[name] = { x: found[index][0], y: found[index][1], shown: false };
      });
      if (!found.length) say("Eyes were not found in a picture; they can be placed by hand.");
      root.dataset.aligned = isAligned() ? "yes" : "no";
      readings();
      repaint();
    } catch { say("Landmarks could not be read; they can be placed by hand."); }
  }

  function say(words) { status.textContent = words; }

  function isAligned() { return state.aligned && pictures.probe.hasEyes() && pictures.candidate.hasEyes(); }

  function layersOfBoth() {
    const { probe, candidate } = pictures;
    if (state.mode === "overlay") return [layer(probe, 1), layer(candidate, state.opacity)];
    if (state.mode === "blink") return [layer(state.blinkOn ? candidate : probe, 1)];
    return [layer(probe, 1, 0, state.split), layer(candidate, 1, state.split, 1)];
  }

  function paint() {
    drawing = 0;
    const cursor = state.tool === "pan" ? null : state.cursor;
    if (state.mode === "side") {
      for (const name of ["probe", "candidate"]) {
        const focused = document.activeElement === panes[name];
        draw(panes[name].querySelector("canvas"), views[name], [layer(pictures[name], 1)], isAligned(), focused ? cursor : null);
      }
    } else {
      draw(panes.both.querySelector("canvas"), views.probe, layersOfBoth(), isAligned(), cursor);
    }
  }

  function repaint() { if (!drawing) drawing = requestAnimationFrame(paint); }

  function viewOf(name) { return name === "both" ? views.probe : views[name]; }

  function change(name, act) {
    act(viewOf(name), panes[name]);
    if (state.linked && name === "candidate") views.probe.copy(views.candidate);
    else if (state.linked) views.candidate.copy(views.probe);
    if (name === "both") views.candidate.copy(views.probe);
    repaint();
  }

  function current() {
    if (state.mode !== "side") return "both";
    return document.activeElement === panes.candidate ? "candidate" : "probe";
  }

  // --- modes ---
  function setMode(mode) {
    state.mode = mode;
    remember("mode", mode);
    plates.dataset.mode = mode;
    find("plate-probe").hidden = mode !== "side";
    find("plate-candidate").hidden = mode !== "side";
    find("plate-both").hidden = mode === "side";
    find("opacity").closest("label").hidden = mode !== "overlay";
    find("split").closest("label").hidden = mode !== "split";
    for (const button of root.querySelectorAll("[data-mode-button]")) {
      button.setAttribute("aria-pressed", String(button.dataset.modeButton === mode));
    }
    clearInterval(state.blinkTimer);
    state.blinkOn = false;
    if (mode === "blink") {
      // Well under three changes a second; with reduced motion the key changes the picture and nothing moves by itself.
      if (!matchMedia("(prefers-reduced-motion: reduce)").matches) state.blinkTimer = setInterval(flip, 700);
      caption();
    } else caption();
    repaint();
  }

  function flip() { state.blinkOn = !state.blinkOn; caption(); repaint(); }

  function caption() {
    const words = { overlay: "Reference laid over the probe", split: "Probe on the left of the line, reference on the right" };
    find("caption-both").textContent = state.mode === "blink" ? (state.blinkOn ? "Reference" : "Probe") : words[state.mode] || "";
  }

  function setTool(tool) {
    state.tool = tool;
    for (const pane of Object.values(panes)) pane.dataset.tool = tool;
    for (const button of root.querySelectorAll("[data-tool-button]")) {
      button.setAttribute("aria-pressed", String(button.dataset.toolButton === tool));
    }
    find("landmark-choice").hidden = tool !== "landmark";
    const help = { pan: "Drag or arrow keys move the picture.", measure: "Place two points: click, or move the cross with the arrow keys and press Enter.", landmark: "Choose a landmark and place it on both pictures." };
    say(help[tool]);
    readings();
    repaint();
  }

  function toggle(name, words) {
    state[name] = !state[name];
    remember(name, state[name] ? "yes" : "no");
    find(`toggle-${name}`).setAttribute("aria-pressed", String(state[name]));
    if (name === "linked" && state.linked) views.candidate.copy(views.probe);
    say(`${words} ${state[name] ? "on" : "off"}.`);
    readings();
    repaint();
  }

  // --- tools ---
  function pictureAt(name, framePoint) {
    if (name !== "both") return name;
    if (state.mode === "blink") return state.blinkOn ? "candidate" : "probe";
    if (state.mode === "overlay") return "candidate";
    const x = apply(views.probe.matrix(panes.both), framePoint).x;
    return x < panes.both.clientWidth * state.split ? "probe" : "candidate";
  }

  function place(name, framePoint) {
    const which = pictureAt(name, framePoint);
    const picture = pictures[which];
    const at = apply(invert(picture.base(isAligned())), framePoint);
    if (state.tool === "landmark") {
      const isNew = !picture.landmarks[state.landmark]?.shown;
      picture.landmarks[state.landmark] = { ...at, shown: true };
      say(`${state.landmark} ${isNew ? "placed" : "moved"} on the ${which === "probe" ? "probe" : "reference"}.`);
    } else if (state.tool === "measure") {
      const open = picture.measures.at(-1);
      if (open && !open.to) {
        open.to = at;
        say(`Measured ${length(picture, open)} on the ${which === "probe" ? "probe" : "reference"}.`);
      } else {
        picture.measures.push({ from: at, to: null });
        say("First point placed. Place the second.");
      }
    }
    state.last = which;
    readings();
    repaint();
  }

  function takeBack() {
    const picture = pictures[state.last || "probe"];
    if (state.tool === "landmark" && picture.landmarks[state.landmark]) picture.landmarks[state.landmark].shown = false;
    else picture.measures.pop();
    say("Taken back.");
    readings();
    repaint();
  }

  function length(picture, measure) {
    const px = Math.hypot(measure.to.x - measure.from.x, measure.to.y - measure.from.y);
    const eyes = picture.eyeDistance();
    return eyes ? `${(px / eyes).toFixed(2)} eye distances` : `${px.toFixed(0)} px`;
  }

  // How far one landmark lies from the other where both faces are laid on each other by the eyes; else nothing.
  function apart(a, b) {
    if (!isAligned()) return "";
    const [p, q] = [apply(pictures.probe.base(true), a), apply(pictures.candidate.base(true), b)];
    return `${(Math.hypot(p.x - q.x, p.y - q.y) / EYE_DISTANCE).toFixed(2)} eye distances apart`;
  }

  function readings() {
    const body = find("readings-body");
    const rows = [];
    const count = Math.max(pictures.probe.measures.length, pictures.candidate.measures.length);
    for (let index = 0; index < count; index += 1) {
      const [a, b] = [pictures.probe.measures[index], pictures.candidate.measures[index]];
      rows.push([`Length ${index + 1}`, a?.to ? length(pictures.probe, a) : "–", b?.to ? length(pictures.candidate, b) : "–"]);
    }
    for (const name of new Set([...Object.keys(pictures.probe.landmarks), ...Object.keys(pictures.candidate.landmarks)])) {
      const [a, b] = [pictures.probe.landmarks[name], pictures.candidate.landmarks[name]];
      if (a?.shown || b?.shown) rows.push([name, a?.shown ? "placed" : "–", b?.shown ? (a?.shown && apart(a, b)) || "placed" : "–"]);
    }
    body.replaceChildren(...rows.map((cells) => {
      const row = document.createElement("tr");
      cells.forEach((words, index) => {
        const cell = document.createElement(index ? "td" : "th");
        if (!index) cell.scope = "row";
        cell.textContent = words;
        row.append(cell);
      });
      return row;
    }));
    // There from the choice of the tool on and of one height: the pictures stay where they are between two points.
    find("readings").hidden = rows.length === 0 && state.tool === "pan";
  }

  // --- pointer ---
  for (const [name, pane] of Object.entries(panes)) {
    const pointers = new Map();
    let travelled = 0;
    let holdsLine = false;
    const atLine = (event) => {
      const box = pane.getBoundingClientRect();
      return name === "both" && state.mode === "split" && Math.abs(event.clientX - box.left - box.width * state.split) < SPLIT_GRIP;
    };
    const toFrame = (event) => {
      const box = pane.getBoundingClientRect();
      return apply(invert(viewOf(name).matrix(pane)), { x: event.clientX - box.left, y: event.clientY - box.top });
    };
    pane.addEventListener("pointerdown", (event) => {
      pane.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
      travelled = 0;
      holdsLine = atLine(event) && (state.tool === "pan" || event.shiftKey);
    });
    pane.addEventListener("pointermove", (event) => {
      const before = pointers.get(event.pointerId);
      if (!before) { pane.classList.toggle("at-line", atLine(event) && state.tool === "pan"); return; }
      const now = { x: event.clientX, y: event.clientY };
      travelled += Math.hypot(now.x - before.x, now.y - before.y);
      if (pointers.size === 2) {
        const other = [...pointers].find(([id]) => id !== event.pointerId)[1];
        const factor = Math.hypot(now.x - other.x, now.y - other.y) / (Math.hypot(before.x - other.x, before.y - other.y) || 1);
        const box = pane.getBoundingClientRect();
        change(name, (view) => view.zoomAt(pane, factor, (now.x + other.x) / 2 - box.left, (now.y + other.y) / 2 - box.top));
      } else if (holdsLine || (state.mode === "split" && event.shiftKey)) {
        const box = pane.getBoundingClientRect();
        setSplit((event.clientX - box.left) / box.width);
      } else if (state.tool === "pan") {
        change(name, (view) => view.pan(pane, now.x - before.x, now.y - before.y));
      }
      pointers.set(event.pointerId, now);
    });
    const up = (event) => {
      const known = pointers.delete(event.pointerId);
      if (known && event.type === "pointerup" && state.tool !== "pan" && travelled < 5) {
        state.cursor = toFrame(event);
        place(name, state.cursor);
      }
    };
    pane.addEventListener("pointerup", up);
    pane.addEventListener("pointercancel", up);
    pane.addEventListener("wheel", (event) => {
      event.preventDefault();
      const box = pane.getBoundingClientRect();
      change(name, (view) => view.zoomAt(pane, Math.exp(-event.deltaY * 0.0015), event.clientX - box.left, event.clientY - box.top));
    }, { passive: false });
    pane.addEventListener("focus", repaint);
    pane.addEventListener("blur", repaint);
    pane.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const arrow = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (arrow && state.tool === "pan") change(name, (view) => view.pan(pane, -arrow[0] * 40, -arrow[1] * 40));
      else if (arrow) {
        const by = (event.shiftKey ? 0.05 : 0.005) / viewOf(name).zoom;
        state.cursor = { x: clamp(state.cursor.x + arrow[0] * by, -1.5, 1.5), y: clamp(state.cursor.y + arrow[1] * by, -1.5, 1.5) };
        repaint();
      } else if ((event.key === "Enter" || event.key === " ") && state.tool !== "pan") place(name, state.cursor);
      else if (event.key === "Backspace") takeBack();
      else if (event.key === "Escape" && state.tool !== "pan") setTool("pan");
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
  }

  function zoom(factor) { change(current(), (view, pane) => view.zoomAt(pane, factor, pane.clientWidth / 2, pane.clientHeight / 2)); }

  function fit() { views.probe.reset(); views.candidate.reset(); repaint(); say("Whole faces shown."); }

  function setSplit(value) { state.split = clamp(value, 0, 1); find("split").value = String(Math.round(state.split * 100)); repaint(); }

  // --- references of the subject; where there are several probes on the page, those ---
  function exchange(name, button, kind) {
    const image = new Image();
    image.addEventListener("load", () => {
      pictures[name] = new Picture(image, {});
      learnLandmarks(pictures[name], button.dataset.faces);
      for (const other of root.querySelectorAll(`[data-${kind}]`)) other.setAttribute("aria-pressed", String(other === button));
      find(`caption-${name}`).textContent = button.dataset.caption;
      readings();
      repaint();
    });
    image.src = button.dataset[kind];
  }

  function showReference(button) { exchange("candidate", button, "reference"); }

  function nextReference(step) {
    const buttons = [...root.querySelectorAll("[data-reference]")];
    if (buttons.length < 2) { say("The subject has one reference."); return; }
    const at = buttons.findIndex((button) => button.getAttribute("aria-pressed") === "true");
    const next = buttons[(at + step + buttons.length) % buttons.length];
    showReference(next);
    say(next.dataset.caption);
  }

  // --- wiring ---
  for (const button of root.querySelectorAll("[data-mode-button]")) button.addEventListener("click", () => setMode(button.dataset.modeButton));
  for (const button of root.querySelectorAll("[data-tool-button]")) button.addEventListener("click", () => setTool(button.dataset.toolButton));
  for (const button of root.querySelectorAll("[data-reference]")) button.addEventListener("click", () => showReference(button));
  for (const button of root.querySelectorAll("[data-probe]")) button.addEventListener("click", () => exchange("probe", button, "probe"));
  find("zoom-in").addEventListener("click", () => zoom(1.25));
  find("zoom-out").addEventListener("click", () => zoom(0.8));
  find("fit").addEventListener("click", fit);
  find("toggle-linked").addEventListener("click", () => toggle("linked", "Synchronised zoom and pan"));
  find("toggle-aligned").addEventListener("click", () => toggle("aligned", "Alignment by the eyes"));
  find("opacity").addEventListener("input", (event) => { state.opacity = event.target.value / 100; repaint(); });
  find("split").addEventListener("input", (event) => setSplit(event.target.value / 100));
  find("landmark").addEventListener("change", (event) => { state.landmark = event.target.value; });
  find("clear").addEventListener("click", () => {
    for (const picture of Object.values(pictures)) {
      picture.measures = [];
      for (const point of Object.values(picture.landmarks)) point.shown = false;
    }
    readings();
    repaint();
  });
  find("to-remarks").addEventListener("click", () => {
    const remarks = document.getElementById(root.dataset.remarks);
    const words = [...find("readings-body").rows].map((row) => [...row.cells].map((cell) => cell.textContent).join(" ")).join("; ");
    if (remarks) remarks.value = [remarks.value.trim(), `Measured (name, probe, reference): ${words}.`].filter(Boolean).join("\n");
    say("Added to the remarks.");
  });

  const keys = {
    v: () => setMode("side"), o: () => setMode("overlay"), s: () => setMode("split"),
    b: () => (state.mode === "blink" ? flip() : setMode("blink")),
    m: () => setTool(state.tool === "measure" ? "pan" : "measure"),
    l: () => setTool(state.tool === "landmark" ? "pan" : "landmark"),
    "+": () => zoom(1.25), "=": () => zoom(1.25), "-": () => zoom(0.8), 0: fit,
    y: () => toggle("linked", "Synchronised zoom and pan"), e: () => toggle("aligned", "Alignment by the eyes"),
    "[": () => nextReference(-1), "]": () => nextReference(1),
  };
  document.addEventListener("console:key", (event) => {
    const act = keys[event.detail];
    if (act && isWorkedAt(root)) { act(); event.preventDefault(); }
  });

  find("toggle-linked").setAttribute("aria-pressed", String(state.linked));
  find("toggle-aligned").setAttribute("aria-pressed", String(state.aligned));
  for (const name of ["probe", "candidate"]) {
    const image = pictures[name].image;
    if (image.complete && image.naturalWidth) rescale(pictures[name], image);
    else image.addEventListener("load", () => { rescale(pictures[name], image); repaint(); });
    image.addEventListener("error", () => say("A picture could not be shown: none is kept of it, or the log cannot be written."));
  }
  for (const picture of Object.values(pictures)) if (picture.image.dataset.faces) learnLandmarks(picture, picture.image.dataset.faces);
  root.classList.add("live");
  for (const image of root.querySelectorAll(".view > img")) image.classList.add("visually-hidden");
  new ResizeObserver(repaint).observe(plates);
  setTool("pan");
  say("");
  setMode(state.mode);
  root.dataset.ready = "yes";
  performance.mark("likeness-ready");
}

// Where eyes, nose and mouth are; once more after a while where the service had too much to do.
async function asked(address) {
  for (const waitMs of [0, 2000, 6000]) {
    await new Promise((resolve) => { setTimeout(resolve, waitMs); });
    const answer = await fetch(address, { headers: { accept: "application/json" } });
    if (answer.ok) return (await answer.json()).landmarks;
    if (answer.status !== 429 && answer.status < 500) break;
  }
  throw new Error("no landmarks");
}

function layer(picture, opacity, from = 0, to = 1) { return { picture, opacity, from, to }; }

// data-landmarks: "x,y x,y …": right eye, left eye, nose tip, right and left mouth corner, in pixels of a picture of
// data-size ("width,height"), or of the picture itself where that is not given
function landmarksOf(element) {
  const found = {};
  (element.dataset.landmarks || "").split(" ").filter(Boolean).forEach((pair, index) => {
    const [x, y] = pair.split(",").map(Number);
    if (LANDMARK_NAMES[index] && Number.isFinite(x) && Number.isFinite(y)) found[LANDMARK_NAMES[index]] = { x, y, shown: false };
  });
  return found;
}

// a picture that was sent smaller than its landmarks say
function rescale(picture, element) {
  const width = Number((element.dataset.size || "").split(",")[0]);
  if (!width || !picture.image.naturalWidth) return;
  const factor = picture.image.naturalWidth / width;
  for (const point of Object.values(picture.landmarks)) { point.x *= factor; point.y *= factor; }
  delete element.dataset.size;
}

function remembered(name, fallback) {
  try { return sessionStorage.getItem(`likeness.${name}`) || fallback; } catch { return fallback; }
}

function remember(name, value) {
  try { sessionStorage.setItem(`likeness.${name}`, value); } catch { /* storage is switched off: nothing is lost but convenience */ }
}
