"use strict";
const KEPT = 5000;
const state = document.getElementById("state");
const log = document.getElementById("log");
const buttons = document.querySelectorAll("button[data-which]");
let lines = [];
let source = null;

async function ask() {
  let agent = "unknown";
  let text = "not reachable: the session may be down";
  try {
    const answer = await fetch("/_alpine/state", { cache: "no-store" });
    if (answer.ok) {
      const found = await answer.json();
      agent = found.agent;
      text = found.exit_status === null ? agent : `${agent} (${found.exit_status})`;
    } else if (answer.status === 401) {
      text = "signed out: run alpine open";
    }
  } catch {
    // The text above says it.
  }
  state.dataset.agent = agent;
  state.textContent = text;
  setTimeout(ask, document.hidden ? 30000 : 3000);
}

function show(which) {
  for (const button of buttons) {
    button.setAttribute("aria-pressed", String(button.dataset.which === which));
  }
  if (source) source.close();
  source = new EventSource(`/_alpine/logs?which=${which}`);
  source.onopen = () => { lines = []; log.textContent = ""; };
  source.onmessage = (event) => {
    const atEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 8;
    const plain = event.data.replace(/\u001b\[[0-9;?]*[A-Za-z]/g, "");
    lines = lines.concat(plain.split("\n")).slice(-KEPT);
    log.textContent = lines.join("\n");
    if (atEnd) log.scrollTop = log.scrollHeight;
  };
}

for (const button of buttons) {
  button.addEventListener("click", () => show(button.dataset.which));
}
show("install");
ask();
