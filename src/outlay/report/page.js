"use strict";
// The one script of the report: points that say what they are, the map of the pool with its slider, and the table of purchases.
const get = id => document.getElementById(id);
const data = JSON.parse(get("data").textContent);
const cut = (text, most) => text.length <= most ? text : text.slice(0, most - 1) + "…";
const groupOf = row => data.groups[data.group[row]];
const count = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

// -- a note beside a point of a figure -----------------------------------------------------------------------------------

const show = (stage, [x, y], text) => {
  const tip = stage.querySelector(".tip"), frame = stage.getBoundingClientRect();
  tip.textContent = text;
  tip.hidden = false;
  const above = y - frame.top - tip.offsetHeight - 12;
  tip.style.left = `${Math.max(Math.min(x - frame.left - tip.offsetWidth / 2, frame.width - tip.offsetWidth), 0)}px`;
  tip.style.top = `${above > 0 ? above : y - frame.top + 14}px`;
};
const hide = stage => { stage.querySelector(".tip").hidden = true; };

// The nearest of some places [x, y] to the pointer, if it is within reach: small points can be met with a finger.
const nearest = (event, places, reach) => {
  let best = -1, least = reach;
  places.forEach(([x, y], i) => {
    const far = Math.hypot(event.clientX - x, event.clientY - y);
    if (far < least) [best, least] = [i, far];
  });
  return best;
};
const step = (event, at, length) => {
  const by = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
  if (!by || !length) return at;
  event.preventDefault();
  return Math.min(Math.max(at + by, 0), length - 1);
};

// -- accuracy against cost ---------------------------------------------------------------------------------------------

for (const stage of document.querySelectorAll(".front")) {
  const points = [...stage.querySelectorAll(".point")];
  const middle = point => {
    const box = point.getBoundingClientRect();
    return [box.left + box.width / 2, box.top + box.height / 2];
  };
  const light = point => {
    points.forEach(other => other.classList.toggle("lit", other === point));
    if (point) show(stage, middle(point), point.getAttribute("aria-label"));
    else hide(stage);
  };
  const meet = event => light(points[nearest(event, points.map(middle), 24)]);
  stage.addEventListener("pointermove", meet);
  stage.addEventListener("pointerdown", meet);
  stage.addEventListener("pointerleave", () => light());
  points.forEach((point, i) => {
    point.addEventListener("focus", () => light(point));
    point.addEventListener("blur", () => light());
    point.addEventListener("keydown", event => {
      const next = step(event, i, points.length);
      if (event.key === "Escape") light();
      if (next === i) return;
      point.tabIndex = -1;
      points[next].tabIndex = 0;
      points[next].focus();
    });
  });
}

// -- the map of the pool -------------------------------------------------------------------------------------------------

{
  const svg = get("map"), stage = svg.parentElement, campaigns = get("map-campaign"), spaces = get("map-space"), slider = get("map-round");
  const add = (parent, name) => parent.appendChild(document.createElementNS("http://www.w3.org/2000/svg", name));
  data.campaigns.forEach((campaign, i) => campaigns.add(new Option(campaign.name, i)));
  data.spaces.forEach((space, i) => spaces.add(new Option(space.name, i)));
  const pool = add(svg, "path"), ring = add(svg, "circle");
  pool.setAttribute("class", "pool");
  ring.setAttribute("class", "ring");
  let layers = [], picks = [], at = -1, place = () => [0, 0], tall = 0;

  const dots = rows => rows.map(row => place(row)).map(([x, y]) => `M${x} ${y}h.01`).join("");
  const onScreen = (row, matrix = svg.getScreenCTM()) => {
    const point = new DOMPoint(...place(row)).matrixTransform(matrix);
    return [point.x, point.y];
  };
  const tell = (row, pick) => {
    const [x, y] = place(row);
    ring.setAttribute("cx", x);
    ring.setAttribute("cy", y);
    ring.style.display = "inline";
    const bought = pick ? `round ${pick.round}, rank ${pick.rank}` : "not bought so far";
    show(stage, onScreen(row), [bought, groupOf(row), cut(data.texts[row], 160)].filter(Boolean).join(" · "));
  };
  const leave = () => {
    ring.style.display = "none";
    at = -1;
    hide(stage);
  };
  const draw = () => {
    const space = data.spaces[spaces.value], campaign = data.campaigns[campaigns.value], m = campaign.rounds.length, round = +slider.value;
    const colours = data.colours[m];
    tall = Math.max(...space.y, 300);
    place = row => [space.x[row], tall - space.y[row]];
    svg.setAttribute("viewBox", `-20 -20 1040 ${tall + 40}`);
    pool.setAttribute("d", dots(data.texts.map((_, row) => row)));
    layers.forEach(layer => layer.remove());
    layers = campaign.rounds.slice(0, round).map((rows, i) => {
      const layer = add(svg, "path");
      layer.setAttribute("class", i + 1 === round ? "picks now" : "picks");
      layer.setAttribute("d", dots(rows));
      layer.style.stroke = colours[i];
      return layer;
    });
    svg.append(ring);
    picks = campaign.rounds.slice(0, round).flatMap((rows, i) => rows.map((row, k) => ({row, round: i + 1, rank: k + 1})));
    const legend = get("map-legend");
    legend.replaceChildren(...colours.map((colour, i) => {
      const entry = document.createElement("span");
      entry.textContent = `round ${i + 1}`;
      entry.className = i + 1 === round ? "now" : i < round ? "" : "later";
      entry.style.setProperty("--colour", colour);
      return entry;
    }));
    const most = {};
    if (round) for (const row of campaign.rounds[round - 1]) most[groupOf(row)] = (most[groupOf(row)] || 0) + 1;
    const first = Object.entries(most).filter(([group]) => group).sort((a, b) => b[1] - a[1]).slice(0, 3).map(([group, n]) => `${group} ${n}`);
    const said = round ? `Round ${round} of ${m}: ${count(campaign.rounds[round - 1].length, "prompt")} bought, ${picks.length.toLocaleString("en")} so far` : `Before the first round of ${m}: nothing is bought`;
    get("map-said").textContent = `${said}.${first.length ? ` Most from ${first.join(", ")}.` : ""}`;
    slider.setAttribute("aria-valuetext", round ? `round ${round} of ${m}` : "before the first round");
    leave();
  };
  const choose = () => {
    slider.max = data.campaigns[campaigns.value].rounds.length; // before the value, which it bounds
    slider.value = slider.max;
    draw();
  };
  const meet = event => {
    const matrix = svg.getScreenCTM(), rows = [...picks.map(pick => pick.row), ...data.texts.keys()]; // of prompts in one place, what was bought
    const met = nearest(event, rows.map(row => onScreen(row, matrix)), 14);
    if (met < 0) leave();
    else tell(rows[met], picks.find(pick => pick.row === rows[met]));
  };
  campaigns.addEventListener("change", choose);
  spaces.addEventListener("change", draw);
  slider.addEventListener("input", draw);
  svg.addEventListener("pointermove", meet);
  svg.addEventListener("pointerdown", meet);
  svg.addEventListener("pointerleave", leave);
  svg.addEventListener("blur", leave);
  svg.addEventListener("keydown", event => {
    if (event.key === "Escape") leave();
    const next = step(event, at, picks.length);
    if (next === at) return;
    at = next;
    tell(picks[at].row, picks[at]);
  });
  campaigns.value = data.first;
  choose();
}

// -- the table of purchases ----------------------------------------------------------------------------------------------

{
  const most = 300, body = get("browse").tBodies[0], heads = [...document.querySelectorAll("#browse th")], filter = get("filter"), more = get("more");
  const rows = data.browse.map(([campaign, round, rank, row, score, near, similarity, represents]) => {
    const cells = [data.campaigns[campaign].name, round, rank, groupOf(row), data.texts[row], score, near < 0 ? "" : cut(data.texts[near], 120), similarity, represents];
    return cells.map(cell => cell === "" ? "–" : String(cell));
  });
  const letters = rows.map(cells => cells.join(" ").toLowerCase()), text = new Map(rows.map((cells, i) => [cells, letters[i]]));
  let limit = most;
  // Numbers by size, words by the alphabet; a dash (no value) comes last either way.
  const compare = (a, b) => !isNaN(a) && !isNaN(b) ? a - b : a.localeCompare(b);
  const fill = () => {
    const want = filter.value.toLowerCase(), found = rows.filter(cells => text.get(cells).includes(want));
    body.replaceChildren(...found.slice(0, limit).map(cells => {
      const line = document.createElement("tr");
      cells.forEach((cell, i) => {
        const place = line.insertCell();
        place.textContent = cell;
        if (i === 4 || i === 6) place.className = "prompt";
      });
      return line;
    }));
    more.hidden = found.length <= limit;
    get("shown").textContent = `${found.length} of ${rows.length} rows.${found.length > limit ? ` The first ${limit} are shown.` : ""}`;
  };
  heads.forEach((head, i) => head.firstChild.addEventListener("click", () => {
    const down = head.ariaSort === "ascending";
    heads.forEach(other => { other.ariaSort = other === head ? (down ? "descending" : "ascending") : null; });
    rows.sort((a, b) => (a[i] === "–") - (b[i] === "–") || (down ? -1 : 1) * compare(a[i], b[i]));
    fill();
  }));
  filter.addEventListener("input", () => { limit = most; fill(); });
  more.addEventListener("click", () => { limit += most; fill(); });
  fill();
}
for (const part of document.querySelectorAll(".scripted")) part.hidden = false;
