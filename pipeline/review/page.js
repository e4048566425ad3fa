"use strict";
(() => {
  const setting = JSON.parse(document.getElementById("setting").textContent);
  const $ = (query, root = document) => root.querySelector(query);
  const $$ = (query, root = document) => [...root.querySelectorAll(query)];
  const captions = setting.captions;
  const cards = $$("article.finding");

  // Every decision is an event that is kept; the last one of a finding counts. A browser may refuse storage to files.
  let stored = true;
  let events = [];
  try {
    events = JSON.parse(localStorage.getItem(setting.key) || "[]");
    localStorage.setItem(setting.key, JSON.stringify(events));
    $("#reviewer").value = localStorage.getItem("petground.reviewer") || "";
  } catch (error) { stored = false; events = []; }
  if (!stored) $("#storage-warning").hidden = false;
  let unsaved = false;

  const keep = () => {
    unsaved = true;
    try { localStorage.setItem(setting.key, JSON.stringify(events)); } catch (error) { stored = false; $("#storage-warning").hidden = false; }
  };
  const captionOf = (card, word) => { const b = $(`.decide [data-decide="${word}"]`, card); return b ? b.lastChild.textContent.trim() : captions[word]; };
  const cardOf = (id) => cards.find((card) => card.dataset.finding === id);
  const latest = (id) => events.filter((e) => e.finding_id === id && e.label_hash === cardOf(id).dataset.hash).pop();

  function show() {
    let decided = 0;
    for (const card of cards) {
      const event = latest(card.dataset.finding);
      const word = event ? event.decision : "";
      if (event) decided += 1;
      $$("[data-decide][aria-pressed]", card).forEach((b) => b.setAttribute("aria-pressed", String(b.dataset.decide === word)));
      const state = $("[data-state]", card);
      state.className = "chip state " + word;
      const stale = !event && events.some((e) => e.finding_id === card.dataset.finding);
      state.textContent = event ? captionOf(card, word) + " · " + event.reviewer : stale ? "label changed since it was judged" : "undecided";
      const dot = $$("[data-dot]").find((d) => d.dataset.dot === card.dataset.finding);
      dot.className = "dot " + word;
      dot.title = event ? captionOf(card, word) : "undecided";
      const reason = $("[data-reason]", card);
      if (document.activeElement !== reason) reason.value = event ? event.reason : "";
    }
    $("#progress").textContent = decided + " of " + cards.length + " decided";
    $("#undo").disabled = events.length === 0;
  }

  function decide(card, word, because) {
    const reviewer = $("#reviewer").value.trim();
    if (!reviewer) { $("#reviewer").focus(); $("#progress").textContent = "Your name first"; return; }
    const input = $("[data-reason]", card);
    const reason = (because || input.value).trim();
    events.push({ exam_id: setting.exam_id, finding_id: card.dataset.finding, decision: word, reason, reviewer,
      time: new Date().toISOString(), version: setting.version, label_hash: card.dataset.hash });
    input.value = reason;
    keep();
    show();
  }

  let here = 0;
  function go(index, move = true) {
    if (!cards.length) return;
    here = Math.max(0, Math.min(cards.length - 1, index));
    cards.forEach((card, i) => card.classList.toggle("here", i === here));
    $$("[data-goto]").forEach((a, i) => a.classList.toggle("here", i === here));
    if (move) { cards[here].scrollIntoView({ block: "start" }); cards[here].focus({ preventScroll: true }); }
  }

  const quoted = (text) => '"' + String(text).replace(/"/g, '""').replace(/[\r\n]+/g, " ") + '"';
  function download(name, type, text) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    unsaved = false;
  }
  $("#save-csv").addEventListener("click", () => {
    const rows = cards.map((card) => latest(card.dataset.finding)).filter(Boolean);
    const lines = [setting.columns.join(","), ...rows.map((row) => setting.columns.map((c) => quoted(row[c])).join(","))];
    download("decisions_" + setting.file + ".csv", "text/csv", lines.join("\n") + "\n");
  });
  $("#save-jsonl").addEventListener("click", () =>
    download("decisions_" + setting.file + ".jsonl", "application/x-ndjson", events.map((e) => JSON.stringify(e) + "\n").join("")));

  // Served by `petground review serve`: decisions go into the work folder at once.
  if (location.protocol !== "file:") {
    const button = $("#save-server");
    const status = $("#saved");
    button.hidden = false;
    $("#save-csv").classList.remove("primary");
    button.addEventListener("click", async () => {
      button.disabled = true;
      try {
        const rows = cards.map((card) => latest(card.dataset.finding)).filter(Boolean);
        const answer = await fetch("decisions", { method: "POST", body: rows.map((e) => JSON.stringify(e) + "\n").join("") });
        const told = await answer.json();
        status.textContent = answer.ok ? told.added + " saved, " + told.total + " in all" : told.error;
        status.className = answer.ok ? "" : "failed";
        if (answer.ok) unsaved = false;
      } catch (error) {
        status.textContent = "not saved: the server does not answer";
        status.className = "failed";
      }
      button.disabled = false;
    });
  }

  // One ramp per SUV window: stored value v is the square root of SUV / ceiling over 8 bits.
  function setWindow(top) {
    const level = Array.from({ length: 256 }, (_, v) => Math.min(1, ((v / 255) ** 2 * setting.ceiling) / top));
    const clip = (x) => Math.min(1, Math.max(0, x)).toFixed(3);
    const set = (query, of) => $$(query).forEach((f) => f.setAttribute("tableValues", level.map(of).map(clip).join(" ")));
    set("#grey feFuncR, #grey feFuncG, #grey feFuncB", (l) => 1 - l);
    set("#hot feFuncR", (l) => 3 * l);
    set("#hot feFuncG", (l) => 3 * l - 1);
    set("#hot feFuncB", (l) => 3 * l - 2);
    set("#hot feFuncA", (l) => Math.min(0.85, 1.6 * Math.sqrt(l) - 0.3));
    $$(".suv-window").forEach((s) => { s.textContent = "SUV 0–" + top; });
  }
  $("#window").addEventListener("change", (event) => setWindow(Number(event.target.value)));
  if (Number($("#window").value) !== 10) setWindow(Number($("#window").value));

  const tick = (id, name) => {
    const box = $(id);
    const apply = () => document.body.classList.toggle(name, !box.checked);
    box.addEventListener("change", apply);
    apply();
    return () => { box.checked = !box.checked; apply(); };
  };
  const flipOutline = tick("#show-outline", "no-outline");
  const flipCross = tick("#show-cross", "no-cross");
  const undo = () => { events.pop(); keep(); show(); };
  $("#undo").addEventListener("click", undo);
  $("#reviewer").addEventListener("change", (event) => { try { localStorage.setItem("petground.reviewer", event.target.value.trim()); } catch (error) { /* shown above */ } });

  const large = $("#large");
  $("#large-close").addEventListener("click", () => large.close());
  large.addEventListener("click", (event) => { if (event.target === large) large.close(); });
  document.addEventListener("click", (event) => {
    const well = event.target.closest("[data-enlarge]");
    if (well) {
      const copy = document.createElement("div");
      copy.className = "well";
      copy.append(...[...well.childNodes].map((node) => node.cloneNode(true)));
      const figure = document.createElement("div");
      figure.className = well.closest("figure").className;
      figure.style.height = "100%";
      figure.append(copy);
      $("#large-well").replaceChildren(figure);
      large.showModal();
      return;
    }
    const button = event.target.closest("[data-decide]");
    if (button) { const card = button.closest("article"); go(cards.indexOf(card), false); decide(card, button.dataset.decide, button.dataset.because); return; }
    const link = event.target.closest("[data-goto]");
    if (link) { event.preventDefault(); go(cards.indexOf(cardOf(link.dataset.goto))); return; }
    const card = event.target.closest("article.finding");
    if (card) go(cards.indexOf(card), false);
  });
  cards.forEach((card) => $("[data-reason]", card).addEventListener("change", () => {
    const event = latest(card.dataset.finding);
    if (event) decide(card, event.decision); // a reason written after the decision belongs to it
  }));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || large.open) return;
    if (event.target.matches("input:not([type=checkbox]), select, textarea")) { if (event.key === "Escape" || (event.key === "Enter" && event.target.matches("input"))) event.target.blur(); return; }
    const buttons = cards.length ? $$(".decide > [data-decide]", cards[here]) : [];
    const byKey = buttons.find((b) => $("kbd", b).textContent === event.key);
    if (byKey) decide(cards[here], byKey.dataset.decide);
    else if (event.key === "j") go(here + 1);
    else if (event.key === "k") go(here - 1);
    else if (event.key === "o") flipOutline();
    else if (event.key === "x") flipCross();
    else if (event.key === "z") undo();
    else return;
    event.preventDefault();
  });
  window.addEventListener("beforeunload", (event) => { if (!stored && unsaved) event.preventDefault(); });
  go(0, false);
  show();
})();
