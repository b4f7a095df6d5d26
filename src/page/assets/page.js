"use strict";
// Text goes into the page as text nodes only: log lines are written by strangers.
const $ = (id) => document.getElementById(id);
let token = sessionStorage.getItem("token") || "";
let before = null; // the overview before, for rates
let questions = [];

function node(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name === "onclick") made.addEventListener("click", value);
    else if (value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.map((child) => (child === null || child === undefined ? "" : child)));
  return made;
}

async function ask(path) {
  const response = await fetch(path, token ? { headers: { authorization: "Bearer " + token } } : {});
  const json = await response.json();
  $("token-form").hidden = response.status !== 401;
  if (!response.ok) throw new Error(json.error || response.statusText);
  return json;
}

const number = (value) => (typeof value === "number" ? value.toLocaleString("en", { maximumFractionDigits: 1 }) : value);
function bytes(value) {
  let unit = 0;
  while (value >= 1024 && unit < 4) { value /= 1024; unit += 1; }
  return value.toLocaleString("en", { maximumFractionDigits: 1 }) + " " + ["B", "KiB", "MiB", "GiB", "TiB"][unit];
}

const drawn = new WeakMap(); // what each table shows
function table(target, caption, columns, rows, empty) {
  // a table that is made again takes the focus away
  const contents = rows.map((row) => columns.map((column) => column.of(row)));
  const texts = contents.map((row) => row.map((content) => (content instanceof Node ? content.textContent : content)));
  const shown = JSON.stringify([caption, columns.map((column) => column.title), texts]);
  if (drawn.get(target) === shown) return;
  drawn.set(target, shown);
  const focused = target.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  if (!rows.length) { target.replaceChildren(node("caption", {}, empty)); return; }
  const cell = (tag, column, content) => node(tag, { class: [column.number ? "number" : "", column.class || ""].join(" ").trim() || null, scope: tag === "th" ? "col" : null }, content);
  const head = node("tr", {}, ...columns.map((column) => cell("th", column, column.title)));
  const body = contents.map((row) => node("tr", {}, ...row.map((content, position) => cell("td", columns[position], content))));
  target.replaceChildren(node("caption", {}, caption), node("thead", {}, head), node("tbody", {}, ...body));
  if (focused) target.querySelector('[data-key="' + CSS.escape(focused) + '"]')?.focus();
}

const STAGES = [
  ["read", "pipeline_chunk_bytes_shipped_total", "bytes"],
  ["decode: lines", "pipeline_lines_decoded_total", "lines"],
  ["decode: rows", "pipeline_rows_decoded_total", "rows"],
  ["decode: rejects", "pipeline_lines_rejected_total", "lines"],
  ["commit: lines", "pipeline_lines_committed_total", "lines"],
  ["commit: stored", "pipeline_bytes_stored_total", "bytes"],
  ["webhook: events", "pipeline_events_accepted_total", "events"],
  ["tasks completed", 'task_count_total{status="completed"}', "tasks"],
  ["tasks failed", 'task_count_total{status="failed"}', "tasks"],
];

function sum(overview, name) {
  return overview.processes.reduce((total, process) => total + ((process.metrics || {})[name] || 0), 0);
}

function showOverview(overview) {
  const seconds = before ? (Date.parse(overview.time) - Date.parse(before.time)) / 1000 : 0;
  const rate = (now, then) => (seconds > 0 ? number(Math.max(0, now - then) / seconds) + "/s" : "…");
  const running = overview.processes.flatMap((process) => (process.metrics ? [process.metrics] : []));
  const largest = (name) => Math.max(0, ...running.map((metrics) => metrics[name] || 0));
  const inFlight = Math.max(0, ...running.map((metrics) => {
    const since = metrics.pipeline_in_flight_oldest_start_seconds;
    return since ? metrics.process_uptime_seconds - since : 0;
  }));
  const facts = [
    ["Archive", bytes(overview.archive.bytes)],
    ["Storage per day", overview.usd_per_day === null ? "?" : overview.usd_per_day < 0.01 ? "under $0.01" : overview.usd_per_day.toLocaleString("en", { style: "currency", currency: "USD" })],
    ["Queue", bytes(sum(overview, "pipeline_queue_bytes"))],
    ["Chunks queued", number(sum(overview, "pipeline_queue_chunks"))],
    ["Oldest queued", number(largest("pipeline_queue_oldest_seconds")) + " s"],
    ["Lag of processors", number(inFlight) + " s"],
    ["Tasks pending", number(overview.tasks.pending)],
    ["Tasks running", number(overview.tasks.running)],
  ];
  $("facts").replaceChildren(...facts.map(([name, value]) => node("div", {}, node("dt", {}, name), node("dd", {}, value))));
  table($("stages"), "Since these processes began (--metrics-from adds others): " + overview.processes.map((process) => process.name + (process.error ? " (" + process.error + ")" : "")).join(", "),
    [{ title: "stage", of: (row) => row[0] }, { title: "total", number: true, of: (row) => (row[2] === "bytes" ? bytes(sum(overview, row[1])) : number(sum(overview, row[1]))) },
      { title: "now", number: true, of: (row) => (before ? rate(sum(overview, row[1]), sum(before, row[1])) : "…") }], STAGES, "");
  const was = Object.fromEntries(before ? before.archive.tables.map((row) => [row.name, row.rows]) : []);
  table($("archive"), overview.archive.location, [
    { title: "table", of: (row) => row.name },
    { title: "rows", number: true, of: (row) => number(row.rows) },
    { title: "now", number: true, of: (row) => (before ? rate(row.rows, was[row.name] || 0) : "…") },
    { title: "size", number: true, of: (row) => bytes(row.bytes) },
    { title: "bytes per row", number: true, of: (row) => (row.rows ? number(row.bytes / row.rows) : "") },
    { title: "files", number: true, of: (row) => number(row.files) },
    { title: "days", number: true, of: (row) => number(row.days) },
  ], overview.archive.tables, "Nothing is stored yet.");
  before = overview;
}

const short = (time) => (time ? time.replace("T", " ").slice(0, 19) : "");

async function showTasks() {
  const tasks = await ask("/api/tasks?status=" + encodeURIComponent($("task-status").value));
  const took = (task) => (task.end_time && task.start_time ? number((Date.parse(task.end_time) - Date.parse(task.start_time)) / 1000) + " s" : "");
  table($("tasks"), "The last ones", [
    { title: "task", of: (task) => node("button", { class: "link", "data-key": task.id, onclick: () => openTask(task.id) }, task.name) },
    { title: "status", of: (task) => node("span", { class: task.status }, task.is_waiting ? "waiting" : task.status) },
    { title: "began", of: (task) => short(task.start_time) },
    { title: "took", number: true, of: took },
    { title: "attempt", number: true, of: (task) => number(task.attempt) },
    { title: "id", of: (task) => task.id },
  ], tasks, "No task.");
}

let opened = null; // the task whose details are shown, while it goes on
async function showTask(id, isRefresh) {
  const { task, steps, lines, is_cut } = await ask("/api/tasks/" + encodeURIComponent(id));
  opened = ["pending", "running"].includes(task.status) ? id : null;
  const heading = node("h3", { tabindex: "-1" }, task.name + " " + task.id + ": " + task.status);
  const parts = [heading];
  if (task.error) parts.push(node("p", { class: "failed" }, task.error));
  for (const step of steps) parts.push(node("p", {}, "step " + step.step + ": ", node("button", { class: "link", onclick: () => openTask(step.id) }, step.name), " " + step.status));
  if (lines.length) parts.push(node("h3", {}, is_cut ? "What it said last" : "What it said"), node("pre", { tabindex: "0" }, lines.join("\n")));
  if (task.result !== null) parts.push(node("h3", {}, "Result"), node("pre", { tabindex: "0" }, JSON.stringify(task.result, null, 1)));
  if (isRefresh && $("task").contains(document.activeElement)) return;
  $("task").replaceChildren(...parts);
  if (!isRefresh) { heading.scrollIntoView({ block: "nearest" }); heading.focus(); }
}

// what a press of a button fails with is said where its answer would be
const openTask = (id) => showTask(id).catch((error) => $("task").replaceChildren(node("p", { class: "failed" }, error.message)));

let rejects = null; // how many there were when they were asked for
async function showRejects() {
  const now = before ? before.archive.tables.find((row) => row.name === "rejects")?.rows || 0 : null;
  // to find the last ones of many takes the server a while
  if (now !== null && now === rejects) return;
  const rows = await ask("/api/rejects");
  rejects = now;
  table($("rejects"), rows.length === 1 ? "The last line that no log type takes" : "The last " + rows.length + " lines that no log type takes", [
    { title: "file", of: (row) => row.file.split("/").pop() },
    { title: "at byte", number: true, of: (row) => number(row.offset) },
    { title: "reason", of: (row) => row.reason },
    { title: "line", class: "line", of: (row) => row.text },
  ], rows, "This archive holds no rejected line.");
}

async function showWindows() {
  const rows = await ask("/api/windows");
  const time = (seconds) => short(new Date(Number(seconds) * 1000).toISOString());
  table($("windows"), "The last ones", [
    { title: "from", of: (row) => time(row.window_start) },
    { title: "to", of: (row) => time(row.window_end) },
    { title: "event type", of: (row) => row.event_type },
    { title: "events", number: true, of: (row) => number(Number(row.count)) },
    { title: "sum", number: true, of: (row) => number(Number(row.sum_value)) },
    { title: "average", number: true, of: (row) => number(Number(row.avg_value)) },
    { title: "users", number: true, of: (row) => number(Number(row.unique_users)) },
  ], rows, "No window was written to this database.");
}

const MAX_BARS = 24;
function bars(question, rows) {
  const values = new Map();
  for (const row of rows) {
    const label = question.labels.map((name) => String(row[name] ?? "none").slice(0, question.label_len || 200)).join(" ");
    values.set(label, (values.get(label) || 0) + (question.value ? row[question.value] : 1));
  }
  let all = [...values];
  if (!question.value) all.sort((one, other) => other[1] - one[1]);
  const rest = all.length - MAX_BARS;
  all = all.slice(0, MAX_BARS);
  const most = Math.max(1, ...all.map(([, value]) => value));
  const chart = node("div", { class: "bars", role: "img", "aria-label": all.map(([label, value]) => label + ": " + value).join("; ") },
    ...all.flatMap(([label, value]) => [node("span", { class: "label" }, label), node("span", { class: "bar", style: "width:" + (100 * value) / most + "%" }), node("span", { class: "value" }, number(value))]));
  return rest > 0 ? [chart, node("p", { class: "quiet" }, rest + " more are in the table.")] : [chart];
}

async function answerQuestion(question, button) {
  for (const other of $("questions").children) other.setAttribute("aria-pressed", String(other === button));
  $("answer").replaceChildren(node("p", { class: "quiet" }, "asking …"));
  try {
    const started = performance.now();
    const { columns, rows, is_cut } = await ask("/api/questions/" + question.number);
    const took = ((performance.now() - started) / 1000).toFixed(2) + " s";
    const listed = node("table");
    table(listed, (is_cut ? "The first " : "") + number(rows.length) + (rows.length === 1 ? " row" : " rows"), columns.map((name) => ({ title: name, number: rows.every((row) => typeof row[name] === "number"), of: (row) => (row[name] === null ? "" : String(row[name])) })), rows, "No row.");
    $("answer").replaceChildren(node("h3", {}, question.title), node("p", { class: "quiet" }, "answered in " + took), ...(rows.length ? bars(question, rows) : []),
      node("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Rows" }, listed), node("details", {}, node("summary", {}, "SQL"), node("pre", {}, question.sql)));
  } catch (error) {
    $("answer").replaceChildren(node("p", { class: "failed" }, error.message));
  }
}

async function showQuestions() {
  questions = await ask("/api/questions");
  $("questions").replaceChildren(...questions.map((question) => {
    const button = node("button", { type: "button", "aria-pressed": "false" }, question.title);
    button.addEventListener("click", () => answerQuestion(question, button));
    return button;
  }));
}

async function refresh() {
  const state = $("state");
  const problems = [];
  const part = (work) => work().catch((error) => problems.push(error.message));
  await part(async () => showOverview(await ask("/api/overview")));
  if (!questions.length) await part(showQuestions);
  await Promise.all([part(showTasks), part(showRejects), part(showWindows)]);
  if (opened) await part(() => showTask(opened, true));
  state.classList.toggle("bad", problems.length > 0);
  const said = [...new Set(problems)].join("; ");
  // what is said aloud is said once
  if (state.textContent !== said) state.textContent = said;
  $("time").textContent = "as of " + new Date().toLocaleTimeString("en-GB");
  document.body.dataset.ready = "true";
}

$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("token").value;
  sessionStorage.setItem("token", token);
  refresh();
});
$("task-status").addEventListener("change", refresh);
async function loop() {
  if ($("live").checked && !document.hidden) await refresh();
  setTimeout(loop, 5000);
}
refresh().then(() => {
  // a link may ask: #q5
  const asked = location.hash.match(/^#q([1-6])$/);
  if (asked && $("questions").children.length) $("questions").children[asked[1] - 1].click();
  setTimeout(loop, 5000);
});
