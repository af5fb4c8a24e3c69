// The annotation page. Every keystroke goes to this browser's storage at once and to the server a moment later; what is newer wins.
"use strict";
const at = id => document.getElementById(id);
const sides = [...document.querySelectorAll(".side")];
const IDLE = 60000; // milliseconds without a sign of life that count as work
let state = null, item = null, side = -1, busy = false;
let spent = 0, alive = 0, ticked = 0; // seconds on this item; last sign of life; last count
let unsaved = null, saving = false, timer = 0, away = false;

const place = it => `outlay ${state.run} ${state.name} ${it.round} ${it.id}`;
const stored = it => { try { return JSON.parse(localStorage.getItem(place(it))); } catch { return null; } };
const keep = (it, value) => { try { localStorage.setItem(place(it), JSON.stringify(value)); return true; } catch { return false; } };
const forget = it => { try { localStorage.removeItem(place(it)); } catch { /* no storage: nothing was kept */ } };
const trouble = text => { at("trouble").textContent = text; at("trouble").hidden = !text; };

async function call(method, path, body, leaving) {
  const answer = await fetch(path, {
    method, keepalive: Boolean(leaving), signal: leaving ? undefined : AbortSignal.timeout(20000),
    headers: body === undefined ? {} : { "Content-Type": "application/json" }, body: body === undefined ? undefined : JSON.stringify(body),
  });
  const said = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(said.error || `the server refused it (${answer.status})`), { status: answer.status });
  return said;
}

// -- time: only while the page is seen and somebody is at it ---------------------------------------------------------------------

function tick() {
  const now = Date.now();
  if (!document.hidden && now - alive < IDLE) spent += Math.min(now - ticked, 2000) / 1000;
  ticked = now;
}
for (const sign of ["keydown", "pointerdown", "pointermove", "scroll", "touchstart"]) addEventListener(sign, () => { alive = Date.now(); }, { passive: true });
setInterval(tick, 1000);

// -- keeping what is written -------------------------------------------------------------------------------------------------------

function edited() {
  tick();
  unsaved = { round: item.round, id: item.id, text: at("response").value, seconds: spent, edited: Math.max(Date.now(), item.edited + 1) };
  item.edited = unsaved.edited;
  const here = keep(item, unsaved);
  at("saved").textContent = here ? "kept in this browser…" : "saving…";
  clearTimeout(timer);
  timer = setTimeout(save, 250);
}

async function save(leaving) {
  if (!unsaved || (saving && !leaving)) return;
  const sent = unsaved;
  saving = true;
  try {
    await call("PUT", "api/draft", sent, leaving === true && JSON.stringify(sent).length < 60000);
    if (unsaved === sent) { unsaved = null; at("saved").textContent = "saved"; }
  } catch (bad) {
    if (bad.status === 401) return lockedOut(bad);
    at("saved").textContent = "kept in this browser; the server does not answer, trying again…";
  } finally {
    saving = false;
  }
  if (unsaved) { clearTimeout(timer); timer = setTimeout(save, unsaved === sent ? 2000 : 50); }
}
addEventListener("pagehide", () => { if (unsaved) save(true); });
document.addEventListener("visibilitychange", () => { tick(); if (document.hidden && unsaved) save(true); });

// -- showing -----------------------------------------------------------------------------------------------------------------------

const minutes = s => s < 60 ? `${Math.round(s)} s` : s < 5400 ? `${Math.round(s / 60)} min` : `${(s / 3600).toFixed(1)} h`;

function show(next) {
  state = next;
  at("door").hidden = true;
  at("who").textContent = state.name;
  at("bar").value = state.total ? state.done / state.total : 0;
  const left = state.total - state.done;
  const pace = state.pace === null ? "" : `, ${minutes(state.pace)} each` + (left ? `, about ${minutes(state.pace * left)} of work left` : "");
  at("far").textContent = `${state.done} of ${state.total} answered, ${state.mine} by you${pace}`;
  at("undo").disabled = !state.undo;
  at("empty").hidden = Boolean(state.item);
  at("work").hidden = false;
  for (const id of ["place", "prompt", "saved", "submit", "skip"]) at(id).hidden = !state.item;
  const fresh = state.item && (!item || place(item) !== place(state.item) || busy);
  if (!state.item) { item = null; at("write").hidden = at("pair").hidden = at("again").hidden = true; return; }
  if (!fresh) return;
  item = state.item;
  const local = stored(item), newer = local && local.edited > item.edited ? local : item;
  spent = newer.seconds;
  alive = ticked = Date.now();
  side = -1;
  at("place").textContent = `Round ${item.round}${item.group ? ` · ${item.group}` : ""}`;
  at("prompt").textContent = item.prompt;
  at("write").hidden = item.kind !== "response";
  at("pair").hidden = item.kind !== "preference";
  at("again").hidden = item.kind !== "response" || !item.drafts.length;
  at("saved").textContent = "";
  if (item.kind === "response") {
    at("response").value = newer.text;
    if (newer === local) { at("saved").textContent = "found in this browser"; edited(); }
    at("response").focus({ preventScroll: true });
  } else {
    sides.forEach((button, i) => { button.querySelector("span").textContent = item.drafts[i]; });
    choose(-1);
    document.activeElement.blur();
  }
  scrollTo(0, 0);
}

function choose(which) {
  side = which;
  sides.forEach((button, i) => button.setAttribute("aria-checked", String(i === which)));
}

// -- doing -------------------------------------------------------------------------------------------------------------------------

async function act(path, body) {
  if (busy) return;
  busy = true;
  const before = item;
  for (const id of ["submit", "skip", "undo"]) at(id).disabled = true;
  try {
    const next = await call("POST", path, body);
    if (body && before) { forget(before); unsaved = null; clearTimeout(timer); }
    trouble("");
    show(next);
  } catch (bad) {
    if (bad.status === 401) lockedOut(bad);
    else if (bad.status === 409 && body) { trouble(`Not taken: ${bad.message}. What you wrote is kept.`); await refresh(); }
    else trouble(bad.status ? bad.message : "The server does not answer. What you wrote is kept in this browser; press Done again in a moment.");
  } finally {
    busy = false;
    at("submit").disabled = at("skip").disabled = false;
    at("undo").disabled = !state || !state.undo;
  }
}

function submit() {
  if (!item) return;
  tick();
  const base = { round: item.round, id: item.id, kind: item.kind, seconds: spent };
  if (item.kind === "preference") {
    if (side < 0) return trouble("Choose one of the two first: press 1 or 2.");
    return act("api/submit", { ...base, side });
  }
  if (!at("response").value.trim()) return trouble("The response is empty. Write one, or skip the prompt and say why.");
  act("api/submit", { ...base, text: at("response").value });
}

function skip() { if (item && !at("why").open) { at("why").returnValue = ""; at("why").showModal(); } }
at("cancel").addEventListener("click", () => at("why").close(""));
at("why").addEventListener("close", () => {
  if (at("why").returnValue !== "skip" || !item) return;
  const reason = document.querySelector("input[name=reason]:checked").value || at("other").value.trim();
  if (!reason) return trouble("Say why the prompt is skipped.");
  tick();
  at("other").value = "";
  act("api/submit", { round: item.round, id: item.id, kind: "skip", text: reason, seconds: spent });
});
at("other").addEventListener("focus", () => { document.querySelector("input[name=reason][value='']").checked = true; });

function again() {
  if (!item || item.kind !== "response" || !item.drafts.length) return;
  const box = at("response");
  box.focus();
  box.select();
  if (!document.execCommand("insertText", false, item.drafts[0])) { box.value = item.drafts[0]; edited(); } // so that Ctrl+Z brings one's own text back
}

async function undo() { if (state && state.undo) { if (unsaved) await save(); act("api/undo"); } }

async function invite() {
  try {
    at("address").value = `${location.origin}/#${(await call("POST", "api/link", {})).token}`;
    at("invited").showModal();
    at("address").select();
  } catch (bad) { trouble(bad.message); }
}

at("response").addEventListener("input", edited);
sides.forEach((button, i) => button.addEventListener("click", () => { choose(i); trouble(""); }));
at("submit").addEventListener("click", submit);
at("skip").addEventListener("click", skip);
at("again").addEventListener("click", again);
at("undo").addEventListener("click", undo);
at("invite").addEventListener("click", invite);
addEventListener("keydown", event => {
  if (document.querySelector("dialog[open]") || event.isComposing || !state) return;
  const done = () => event.preventDefault();
  if ((event.ctrlKey || event.metaKey) && event.key === "Enter") { done(); submit(); }
  else if (event.altKey && event.code === "KeyS") { done(); skip(); }
  else if (event.altKey && event.code === "KeyR") { done(); again(); }
  else if (event.altKey && event.code === "KeyU") { done(); undo(); }
  else if (item && item.kind === "preference" && !event.ctrlKey && !event.metaKey && !event.altKey) {
    if (event.key === "1" || event.key === "ArrowLeft") { done(); choose(0); trouble(""); }
    else if (event.key === "2" || event.key === "ArrowRight") { done(); choose(1); trouble(""); }
    else if (event.key === "Enter" && side >= 0) { done(); submit(); }
  }
});

// -- coming in ---------------------------------------------------------------------------------------------------------------------

function lockedOut(bad) {
  at("work").hidden = at("door").hidden = true;
  trouble(bad.message);
}

async function refresh() {
  try {
    show(await call("GET", "api/state"));
    if (away) { away = false; trouble(""); }
    return true;
  }
  catch (bad) {
    if (bad.status === 401) return false;
    away = true;
    trouble(bad.status ? bad.message : "The server does not answer; trying again…");
    setTimeout(refresh, 2000);
    return true;
  }
}

at("door").addEventListener("submit", async event => {
  event.preventDefault();
  try {
    await call("POST", "api/enter", { token: location.hash.slice(1), name: at("name").value });
    history.replaceState(null, "", "/");
    trouble("");
    await refresh();
  } catch (bad) { trouble(bad.status ? bad.message : "The server does not answer."); }
});

(async () => {
  const token = location.hash.slice(1);
  if (await refresh()) { if (state && token) history.replaceState(null, "", "/"); return; }
  if (!token) return trouble("Open the link that `outlay annotate` printed; it ends in # and a token.");
  at("door").hidden = false;
  at("name").focus();
})();
setInterval(() => { if (state && !item && !busy && !document.hidden) refresh(); }, 5000); // a new round may be handed over
