"use strict";
(() => {
  const setting = JSON.parse(document.getElementById("setting").textContent);
  const $ = (query, root = document) => root.querySelector(query);
  const $$ = (query, root = document) => [...root.querySelectorAll(query)];
  const captions = setting.captions;
  const cards = $$("article.finding");

  const served = location.protocol !== "file:"; // by `petground review serve`

  // Every decision is an event that is kept; of those not taken back the newest of a finding counts, whoever made it.
  // Events of this browser are `sent` once they are in WORK (served) or in a downloaded file; setting.kept is of WORK.
  let stored = true;
  let events = [];
  try {
    events = JSON.parse(localStorage.getItem(setting.key) || "[]");
    localStorage.setItem(setting.key, JSON.stringify(events));
    $("#reviewer").value = localStorage.getItem("petground.reviewer") || "";
  } catch (error) { stored = false; events = []; }

  const me = () => $("#reviewer").value.trim();
  const captionOf = (card, word) => { const b = $(`.decide [data-decide="${word}"]`, card); return b ? b.lastChild.textContent.trim() : captions[word]; };
  const cardOf = (id) => cards.find((card) => card.dataset.finding === id);
  const mine = () => events.filter((e) => cardOf(e.finding_id)); // a finding may have left the report
  const unsent = () => mine().filter((e) => !e.sent);
  const at = (e) => e.at ?? Date.parse(e.time);
  const nameOf = (e, time) => JSON.stringify([e.finding_id, e.reviewer, time]);
  function standing(given) {
    const back = new Set(given.filter((e) => e.decision === "retract").map((e) => nameOf(e, e.back ?? Date.parse(e.reason))));
    return given.filter((e) => e.decision !== "retract" && !back.has(nameOf(e, at(e)))).sort((a, b) => at(a) - at(b));
  }
  const latest = (id, given = [...setting.kept, ...mine()]) => standing(given).filter((e) => e.finding_id === id).pop();

  function keep() {
    try { localStorage.setItem(setting.key, JSON.stringify(events)); } catch (error) { stored = false; }
    $("#storage-warning").hidden = stored || served;
    show();
    if (served) post();
  }

  function show() {
    const count = { decided: 0, unsure: 0, earlier: 0 };
    for (const card of cards) {
      const event = latest(card.dataset.finding);
      const word = event ? event.decision : "";
      const earlier = Boolean(event) && event.label_hash !== card.dataset.hash;
      if (event) count[word === "unsure" ? "unsure" : "decided"] += 1;
      if (earlier) count.earlier += 1;
      const pressed = event && !earlier && event.reviewer === me();
      $$("[data-decide][aria-pressed]", card).forEach((b) => b.setAttribute("aria-pressed", String(pressed && b.dataset.decide === word)));
      const state = $("[data-state]", card);
      state.className = "chip state " + word + (earlier ? " earlier" : "");
      state.textContent = event ? captionOf(card, word) + " · " + event.reviewer + (earlier ? " · label changed since" : "") : "undecided";
      state.title = event ? new Date(at(event)).toLocaleString() + (event.reason ? ": " + event.reason : "") : "";
      const dot = $$("[data-dot]").find((d) => d.dataset.dot === card.dataset.finding);
      dot.className = "dot " + word + (earlier ? " earlier" : "");
      dot.title = state.textContent;
      const reason = $("[data-reason]", card);
      if (pressed && document.activeElement !== reason) reason.value = event.reason;
      reason.placeholder = event && event.reason && !pressed ? event.reviewer + ": " + event.reason : "why, what to change (optional)";
    }
    const more = [[count.unsure, "unsure"], [count.earlier, "on an earlier label"]].filter(([n]) => n).map((pair) => " · " + pair.join(" "));
    $("#progress").textContent = count.decided + " of " + cards.length + " decided" + more.join("");
    $("#undo").disabled = !standing(mine()).length;
    $("#save-csv").disabled = $("#save-jsonl").disabled = !mine().length;
    if (!served) $("#saved").textContent = unsent().length ? unsent().length + " not downloaded" : "";
  }

  // A time is the name by which a decision is taken back: two of one finding never share it.
  const add = (card, decision, reason, reviewer) => events.push({ exam_id: setting.exam_id, finding_id: card.dataset.finding, decision, reason,
    reviewer, time: new Date(Math.max(Date.now(), ...events.map((e) => at(e) + 1))).toISOString(), version: setting.version, label_hash: card.dataset.hash });

  function decide(card, word, because) {
    const reviewer = me();
    if (!reviewer) { $("#reviewer").focus(); $("#progress").textContent = "Your name first"; return; }
    const input = $("[data-reason]", card);
    const reason = (because || input.value).trim();
    input.value = reason;
    const last = latest(card.dataset.finding);
    const same = last && last.decision === word && last.reason === reason && last.reviewer === reviewer && last.label_hash === card.dataset.hash;
    if (!same) { add(card, word, reason, reviewer); keep(); }
  }

  function undo() {
    const last = standing(mine()).pop();
    if (!last) return;
    const card = cardOf(last.finding_id);
    if (served || last.sent) add(card, "retract", last.time, last.reviewer); // it may have left this browser
    else events.splice(events.indexOf(last), 1);
    $("[data-reason]", card).value = "";
    go(cards.indexOf(card));
    keep();
  }

  let here = 0;
  function go(index, move = true) {
    if (!cards.length) return;
    here = Math.max(0, Math.min(cards.length - 1, index));
    cards.forEach((card, i) => card.classList.toggle("here", i === here));
    $$("[data-goto]").forEach((a, i) => a.classList.toggle("here", i === here));
    // at once: while the page glides, a key would fall on a card in between
    if (move) { cards[here].scrollIntoView({ block: "start", behavior: "instant" }); cards[here].focus({ preventScroll: true }); }
  }

  // Keys decide on what is on the screen: unless the current card is wholly there, the one that fills most of it.
  function seen(card) {
    const top = Math.max(0, $(".top").getBoundingClientRect().bottom);
    const box = card.getBoundingClientRect();
    return { px: Math.max(0, Math.min(box.bottom, innerHeight) - Math.max(box.top, top)), whole: box.top >= top && box.bottom <= innerHeight };
  }
  const onScreen = (card) => seen(card).whole || seen(card).px > 100;
  function follow() {
    if (!cards.length || seen(cards[here]).whole) return;
    const px = cards.map((card) => seen(card).px);
    const most = px.indexOf(Math.max(...px));
    if (px[most] > px[here]) go(most, false);
  }
  document.addEventListener("scroll", follow, { passive: true });
  const bar = new ResizeObserver(() => document.documentElement.style.setProperty("--top", $(".top").offsetHeight + "px"));
  bar.observe($(".top")); // it wraps on narrow screens, and what sticks below it must not hide behind it

  const quoted = (text) => '"' + String(text).replace(/"/g, '""').replace(/[\r\n]+/g, " ") + '"';
  function download(name, type, text) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }
  function sent() { if (!served) { mine().forEach((e) => { e.sent = true; }); keep(); } }
  $("#save-csv").addEventListener("click", () => {
    const rows = [...cards.map((card) => latest(card.dataset.finding, mine())).filter(Boolean), ...mine().filter((e) => e.decision === "retract")];
    const lines = [setting.columns.join(","), ...rows.map((row) => setting.columns.map((c) => quoted(row[c])).join(","))];
    download("decisions_" + setting.file + ".csv", "text/csv", lines.join("\n") + "\n");
    sent();
  });
  $("#save-jsonl").addEventListener("click", () => {
    download("decisions_" + setting.file + ".jsonl", "application/x-ndjson", mine().map((e) => JSON.stringify(e, setting.columns) + "\n").join(""));
    sent();
  });

  // Served: every event goes into WORK at once, one by one, so that one that is refused holds up no other.
  let posting = false, again = 0;
  async function post() {
    if (posting) return; // it takes what came meanwhile
    posting = true;
    const status = $("#saved");
    const tried = new Set();
    let why = "";
    for (let event; (event = unsent().find((e) => !tried.has(e))); tried.add(event)) {
      status.textContent = "saving…";
      try {
        const answer = await fetch("decisions", { method: "POST", keepalive: true, body: JSON.stringify(event, setting.columns) + "\n" });
        if (answer.ok) event.sent = true;
        else why = (await answer.json()).error;
      } catch (error) { why = "not saved: the server does not answer"; }
    }
    posting = false;
    try { localStorage.setItem(setting.key, JSON.stringify(events)); } catch (error) { stored = false; }
    const left = unsent().length;
    status.textContent = left ? left + " " + why : tried.size ? "saved" : "";
    status.className = left ? "failed" : "";
    $("#save-server").hidden = !left;
    clearTimeout(again);
    if (left) again = setTimeout(post, 10000);
  }
  if (served) {
    $("#save-csv").classList.remove("primary");
    $("#save-server").addEventListener("click", post);
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
  $("#undo").addEventListener("click", undo);
  $("#reviewer").addEventListener("change", () => { try { localStorage.setItem("petground.reviewer", me()); } catch (error) { /* the banner tells */ } show(); });

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
    if (event && event.reviewer === me() && event.label_hash === card.dataset.hash) decide(card, event.decision); // a reason written after the own decision belongs to it
  }));
  document.addEventListener("focusin", (event) => { const card = event.target.closest("article.finding"); if (card) go(cards.indexOf(card), false); });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || large.open) return;
    if (event.target.matches("input:not([type=checkbox]), select, textarea")) { if (event.key === "Escape" || (event.key === "Enter" && event.target.matches("input"))) event.target.blur(); return; }
    if (cards.length && !onScreen(cards[here])) follow(); // a busy browser tells of scrolling late
    const buttons = cards.length ? $$(".decide > [data-decide]", cards[here]) : [];
    const byKey = buttons.find((b) => $("kbd", b).textContent === event.key);
    if (byKey && !event.repeat && onScreen(cards[here])) decide(cards[here], byKey.dataset.decide);
    else if (byKey) go(here); // it is shown first, and nothing decided
    else if (event.key === "j") go(here + 1);
    else if (event.key === "k") go(here - 1);
    else if (event.key === "o") flipOutline();
    else if (event.key === "x") flipCross();
    else if (event.key === "z") undo();
    else return;
    event.preventDefault();
  });
  window.addEventListener("beforeunload", (event) => { if (unsent().length) event.preventDefault(); });
  go(0, false);
  keep();
})();
