// One page: a history is clicked together, its list is shown, and the reverse walk that leads there.
// Everything that comes from the server is put in as text.
"use strict";

const LENGTH = 10; // items of the list
const NEAREST = 5; // items at a step of a walk
const PLAY = 4000; // milliseconds of a whole walk
const at = (id) => document.getElementById(id);
const state = { about: null, history: [], user: null, asked: 0, walk: null, timer: null };

function make(tag, properties, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties || {})) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null)); // strings become text
  return made;
}

const counted = (n, what) => `${n.toLocaleString("en")} ${what}${n === 1 ? "" : "s"}`;
const nameOf = (entry) => entry.title || String(entry.item);
const shown = (score) =>
  Math.abs(score) >= 1e5 || (score !== 0 && Math.abs(score) < 1e-3)
    ? score.toExponential(2)
    : score.toFixed(Math.abs(score) >= 100 ? 1 : 3);

function entries(list) {
  return list.items.map((item, place) => ({
    item,
    title: list.titles ? list.titles[place] : "",
    score: list.scores ? list.scores[place] : null,
  }));
}

function named(entry) {
  const name = make("span", { className: "name" }, nameOf(entry));
  if (entry.title) name.append(" ", make("small", {}, String(entry.item)));
  return name;
}

async function ask(path, body) {
  const given = body && {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  };
  let reply, found;
  try {
    reply = await fetch(path, given);
    found = await reply.json();
  } catch {
    throw new Error("The server does not answer. Is bin/serve still running?");
  }
  if (!reply.ok) throw new Error(found.error);
  return found;
}

function complain(error) {
  at("trouble").hidden = !error;
  at("trouble").textContent = error ? error.message : "";
}

// The history

function add(entry) {
  state.history.push(entry);
  changed();
  at("status").textContent = `${nameOf(entry)} added`;
}

function changed(user = null) {
  state.user = user;
  drawHistory();
  refresh();
}

function drawHistory() {
  const list = at("history");
  const empty = state.history.length === 0;
  list.replaceChildren(
    ...state.history.map((entry, place) => {
      const button = make("button", { type: "button", className: "bare" }, "×");
      button.setAttribute("aria-label", `Remove ${nameOf(entry)}`);
      button.addEventListener("click", () => {
        state.history.splice(place, 1);
        changed();
        const left = list.querySelectorAll("button");
        (left[Math.min(place, left.length - 1)] || at("search")).focus();
      });
      return make("li", {}, named(entry), button);
    })
  );
  list.hidden = at("clear").hidden = empty;
  at("empty").hidden = at("popular").hidden = !empty;
  list.scrollTop = list.scrollHeight;
}

async function takeUser(event) {
  event.preventDefault();
  const user = at("user").value.trim();
  if (!user) return;
  try {
    const found = await ask(`users/${encodeURIComponent(user)}`);
    complain(null);
    state.history = entries(found);
    changed(found.user);
    at("status").textContent = `${counted(found.length, "item")} of user ${user}`;
  } catch (error) {
    complain(error);
  }
}

// The search, a combobox

const search = { found: [], active: -1, asked: 0, timer: null };

function openSearch(found, total) {
  search.found = found;
  search.active = found.length ? 0 : -1;
  const options = found.map((entry, place) => {
    const option = make("li", { id: `found-${place}`, role: "option" }, named(entry));
    option.addEventListener("pointerdown", (event) => event.preventDefault());
    option.addEventListener("click", () => pick(place));
    return option;
  });
  const more = total - found.length;
  if (!found.length) options.push(make("li", { className: "none" }, "Nothing has that in its title or id"));
  else if (more) options.push(make("li", { className: "none" }, make("small", {}, `and ${more.toLocaleString("en")} more`)));
  at("found").replaceChildren(...options);
  showActive();
  at("found").hidden = false;
  at("search").setAttribute("aria-expanded", "true");
}

function closeSearch() {
  search.asked += 1;
  clearTimeout(search.timer);
  at("found").hidden = true;
  at("search").setAttribute("aria-expanded", "false");
  at("search").removeAttribute("aria-activedescendant");
}

function showActive() {
  at("found").querySelectorAll("[role=option]").forEach((option, place) => {
    option.setAttribute("aria-selected", String(place === search.active));
    if (place === search.active) option.scrollIntoView({ block: "nearest" });
  });
  if (search.active >= 0) at("search").setAttribute("aria-activedescendant", `found-${search.active}`);
  else at("search").removeAttribute("aria-activedescendant");
}

function pick(place) {
  const entry = search.found[place];
  if (!entry) return;
  at("search").value = "";
  closeSearch();
  add(entry);
}

async function runSearch() {
  const asked = (search.asked += 1);
  const text = at("search").value.trim();
  if (!text) return closeSearch();
  try {
    const found = await ask(`items?limit=12&q=${encodeURIComponent(text)}`);
    if (asked === search.asked) openSearch(found.items, found.total);
  } catch (error) {
    complain(error);
  }
}

function searchKey(event) {
  const open = !at("found").hidden;
  if (event.key === "Escape" && open) closeSearch();
  else if (event.key === "Enter" && open) pick(search.active);
  else if ((event.key === "ArrowDown" || event.key === "ArrowUp") && open && search.found.length) {
    const step = event.key === "ArrowDown" ? 1 : -1;
    search.active = (search.active + step + search.found.length) % search.found.length;
    showActive();
  } else return;
  event.preventDefault();
}

// The list and the walks of a history

async function refresh() {
  const asked = (state.asked += 1);
  stop();
  const empty = state.history.length === 0;
  at("about-list").textContent = "The list appears here as soon as the history has an item.";
  if (empty) {
    at("list").replaceChildren();
    at("side").hidden = at("walker").hidden = true;
    aboutWalk();
    return;
  }
  const { draws, limits, walk } = state.about;
  const ids = state.history.slice(-limits.history).map((entry) => entry.item);
  const whose = state.user !== null;
  const options = { draws };
  const lists = whose ? { users: [state.user] } : { histories: [ids] };
  const walker = whose ? { user: state.user } : { history: ids };
  at("recommended").setAttribute("aria-busy", "true");
  at("walk").setAttribute("aria-busy", "true");
  try {
    const [found, walked] = await Promise.all([
      ask("recommend", { ...lists, ...options, k: Math.min(LENGTH, limits.k) }),
      walk.steps === null
        ? null
        : ask("walk", { ...walker, ...options, nearest: Math.min(NEAREST, limits.nearest) }),
    ]);
    if (asked !== state.asked) return;
    complain(null);
    drawList(found.lists[0]);
    drawWalks(walked);
  } catch (error) {
    if (asked === state.asked) complain(error);
  } finally {
    if (asked === state.asked) {
      at("recommended").removeAttribute("aria-busy");
      at("walk").removeAttribute("aria-busy");
    }
  }
}

function drawList(list) {
  const draws = (list.draws || []).map(entries);
  const rows = entries(list).map((entry) => {
    const button = make("button", { type: "button", className: "bare" }, "+");
    button.setAttribute("aria-label", `Add ${nameOf(entry)} to the history`);
    button.addEventListener("click", () => add({ item: entry.item, title: entry.title }));
    const score = make("span", { className: "score", title: String(entry.score) }, shown(entry.score));
    return make("li", {}, named(entry), dots(entry, draws), score, button);
  });
  at("list").replaceChildren(...rows);
  at("about-list").textContent = list.fallback
    ? "Nothing of this history is known to the model: these are the most popular items, with how often they occur."
    : rows.length
      ? aboutDraws(list, draws.length)
      : "No candidate is left: every item is in the history.";
  at("side").hidden = draws.length < 2 || list.fallback;
  at("draws").replaceChildren(...draws.map((own, number) => column(number, own)));
  at("status").textContent = `${counted(rows.length, "item")} recommended`;
}

function aboutDraws(list, number) {
  if (number < 2) return "Best first, with scores.";
  const share = Math.round(100 * (1 - list.spread));
  return `The best of ${number} draws of noise, with scores. Dots say in how many of their lists an item is; two of the lists share ${share} % of their items.`;
}

function dots(entry, draws) {
  if (draws.length < 2) return make("span", {});
  const inside = draws.map((own) => own.some((other) => other.item === entry.item));
  const count = inside.filter(Boolean).length;
  const said = `in the lists of ${count} of ${draws.length} draws`;
  const marks = inside.map((there) => make("i", { className: there ? "" : "off" }));
  return make("span", { className: "dots", role: "img", "aria-label": said, title: said }, ...marks);
}

function column(number, own) {
  const heading = make("h3", {}, `Draw ${number + 1}`);
  return make("div", {}, heading, make("ol", {}, ...own.map((entry) => make("li", {}, nameOf(entry)))));
}

function aboutWalk() {
  const { walk, draws, model } = state.about;
  const sentence = (text) => `${text[0].toUpperCase()}${text.slice(1)}.`;
  if (walk.steps === null) {
    at("about-walk").textContent = sentence(walk.why);
    return;
  }
  const several = draws > 1 ? `${draws} walks, each with noise of its own` : "The walk";
  at("about-walk").textContent =
    `${several}: what ${model} would recommend, were it to stop after so many of its ` +
    `${counted(walk.steps, "reverse step")}. Bold is the item that a walk ends in, plain what is behind it there, faint the rest.` + (walk.why ? ` ${sentence(walk.why)}` : "");
}

function drawWalks(walked) {
  aboutWalk();
  state.walk = null;
  at("walker").hidden = walked === null;
  if (walked === null) return;
  const walks = walked.draws.map((steps) => steps.map(entries));
  const columns = walks.map((steps, number) => {
    const last = steps[steps.length - 1];
    const places = walked.draws[number].map((step) => step.place);
    const strip = make("div", { className: "strip", role: "img" }, ...places.map((place) => make("i", { className: shade(place) })));
    strip.setAttribute("aria-label", settled(places, walked));
    strip.addEventListener("click", (event) => {
      const place = [...strip.children].indexOf(event.target);
      if (place >= 0) go(place);
    });
    const where = make("p", { className: "where soft" });
    const list = make("ol", {});
    const heading = walks.length > 1 ? make("h3", {}, `Draw ${number + 1}`) : null;
    return { steps, last, places, strip, where, list, box: make("div", {}, heading, strip, where, list) };
  });
  at("walks").replaceChildren(...columns.map((each) => each.box));
  state.walk = { ...walked, columns };
  at("step").max = String(walked.shown.length - 1);
  go(walked.shown.length - 1);
}

// How dark a cell is: the nearer the item that the walk ends in, the darker.
const shade = (place) =>
  place === null ? "" : place === 1 ? "p1" : place <= 5 ? "p5" : place <= 20 ? "p20" : "p100";

function settled(places, walked) {
  let from = places.length - 1;
  while (from > 0 && places[from - 1] === 1) from -= 1;
  return `the item that it ends in is the nearest from step ${walked.shown[from]} of ${walked.steps} on`;
}

function go(place) {
  const { columns, shown: taken, steps } = state.walk;
  const said = taken[place] === 0 ? `the start, 0 of ${steps}` : `step ${taken[place]} of ${steps}`;
  at("step").value = String(place);
  at("step").setAttribute("aria-valuetext", said);
  at("taken").textContent = said;
  for (const each of columns) {
    [...each.strip.children].forEach((cell, i) => cell.classList.toggle("here", i === place));
    const end = nameOf(each.last[0]);
    const stands = each.places[place];
    each.where.textContent = stands === null
      ? `${end} is beyond place ${state.about.walk.places}`
      : `${end} is at place ${stands}`;
    each.list.replaceChildren(
      ...each.steps[place].map((entry) => {
        const found = each.last.findIndex((other) => other.item === entry.item);
        const className = found === 0 ? "end" : found > 0 ? "late" : "";
        return make("li", { className, title: shown(entry.score) }, nameOf(entry));
      })
    );
  }
}

function play() {
  if (state.timer !== null) return stop();
  const last = state.walk.shown.length - 1;
  const from = Number(at("step").value);
  let place = from >= last ? 0 : from;
  go(place);
  at("play").textContent = "Pause";
  at("play").setAttribute("aria-pressed", "true");
  state.timer = setInterval(() => {
    if (place >= last) return stop();
    go((place += 1));
  }, Math.max(PLAY / Math.max(last, 1), 60));
}

function stop() {
  clearInterval(state.timer);
  state.timer = null;
  at("play").textContent = "Play";
  at("play").setAttribute("aria-pressed", "false");
}

// The beginning

async function begin() {
  try {
    const [about, popular] = await Promise.all([ask("about"), ask("items?limit=8")]);
    state.about = about;
    document.title = `${about.model} on ${about.dataset}`;
    at("model").textContent = document.title;
    at("sizes").textContent = `${counted(about.items, "item")}, ${counted(about.users, "user")}`;
    at("users").replaceChildren(...about.example_users.map((user) => make("option", { value: String(user) })));
    at("known").hidden = about.users === 0;
    at("popular").replaceChildren(
      ...popular.items.map((entry) => {
        const button = make("button", { type: "button" }, nameOf(entry));
        button.addEventListener("click", () => {
          add(entry);
          at("search").focus();
        });
        return make("li", {}, button);
      })
    );
    aboutWalk();
  } catch (error) {
    complain(error);
    return;
  }
  at("search").addEventListener("input", () => {
    clearTimeout(search.timer);
    search.timer = setTimeout(runSearch, 120);
  });
  at("search").addEventListener("keydown", searchKey);
  at("search").addEventListener("blur", closeSearch);
  at("known").addEventListener("submit", takeUser);
  at("clear").addEventListener("click", () => {
    state.history = [];
    changed();
    at("search").focus();
  });
  at("step").addEventListener("input", () => {
    stop();
    go(Number(at("step").value));
  });
  at("play").addEventListener("click", play);
}

begin();
