"use strict";
(function () {
  const RANGES = [["5m", 300], ["15m", 900], ["1h", 3600], ["6h", 21600], ["24h", 86400]];
  const REFRESHES = [["off", 0], ["5s", 5], ["15s", 15], ["1m", 60]];
  const POINTS = 240;
  // A rate needs two samples: one minute bridges scrapes up to 30 s apart.
  const LEAST_WINDOW_S = 60;
  const MOST_CURVES = 16;
  const COLORS = 8;
  const SVG = "http://www.w3.org/2000/svg";
  const PLOT_HEIGHT = 190;
  const page = JSON.parse(document.getElementById("panels").textContent);
  // Prometheus may be served below a path: consoles are at PREFIX/consoles/NAME.html.
  const prefix = location.pathname.slice(0, Math.max(location.pathname.lastIndexOf("/consoles/"), 0));
  const address = new URLSearchParams(location.search);
  const state = {
    range: pick(RANGES, address.get("range"), "15m"),
    refresh: pick(REFRESHES, address.get("refresh"), "5s"),
    instance: address.get("instance") || "",
    instances: [],
    turn: 0,
    timer: 0,
    views: [],
  };

  function pick(choices, wanted, otherwise) {
    return choices.some((choice) => choice[0] === wanted) ? wanted : otherwise;
  }
  function valueOf(choices, name) {
    return choices.find((choice) => choice[0] === name)[1];
  }
  function byId(id) {
    return document.getElementById(id);
  }
  function make(tag, attributes, children) {
    return fill(document.createElement(tag), attributes, children);
  }
  function draw(tag, attributes, children) {
    return fill(document.createElementNS(SVG, tag), attributes, children);
  }
  // Text goes in as text nodes alone: labels and messages are never read as HTML.
  function fill(element, attributes, children) {
    for (const name of Object.keys(attributes || {})) element.setAttribute(name, attributes[name]);
    for (const child of children || []) element.append(child);
    return element;
  }

  // Units. An axis has one scale for all its ticks; a single value has its own.
  const STEPS = {
    seconds: [[1e-6, "\u00b5s", 1e6], [1e-3, "ms", 1e3], [1, "s", 1], [120, "min", 1 / 60], [7200, "h", 1 / 3600]],
    watts: [[1e-3, "mW", 1e3], [1, "W", 1], [1e3, "kW", 1e-3], [1e6, "MW", 1e-6]],
    joules: [[1e-6, "\u00b5J", 1e6], [1e-3, "mJ", 1e3], [1, "J", 1], [1e3, "kJ", 1e-3], [1e6, "MJ", 1e-6]],
    bytes: binary(""),
    bytes_per_second: binary("/s"),
    tokens_per_second: decimal("tok/s"),
    requests_per_second: decimal("req/s"),
    per_minute: decimal("/min"),
    tokens: decimal("tokens"),
    count: decimal(""),
    ratio: [[0, "%", 100]],
  };
  function binary(suffix) {
    return ["B", "KiB", "MiB", "GiB", "TiB"].map((name, i) => [Math.pow(1024, i), name + suffix, Math.pow(1024, -i)]);
  }
  function decimal(suffix) {
    return [[0, suffix, 1], [1e4, "k " + suffix, 1e-3], [1e6, "M " + suffix, 1e-6], [1e9, "G " + suffix, 1e-9]];
  }
  function scaleOf(unit, value) {
    const size = Math.abs(value);
    let found = STEPS[unit][0];
    if (size === 0) found = STEPS[unit].find((step) => step[2] === 1) || found;
    else for (const step of STEPS[unit]) if (size >= step[0] * 0.9995) found = step;
    return { name: found[1].trim(), factor: found[2] };
  }
  function digits(value) {
    const size = Math.abs(value);
    if (size === 0) return "0";
    if (size < 0.001) return value.toExponential(1);
    const places = size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3;
    const text = value.toFixed(places);
    return text.indexOf(".") < 0 ? text : String(Number(text));
  }
  function parts(unit, value) {
    const scale = scaleOf(unit, value);
    return { number: digits(value * scale.factor), unit: scale.name };
  }
  function label(unit, value) {
    if (!Number.isFinite(value)) return "\u2013";
    const text = parts(unit, value);
    return text.unit === "" ? text.number : text.number + (text.unit === "%" ? "\u2009" : "\u00a0") + text.unit;
  }
  function niceStep(largest, unit) {
    if (largest <= 0) return 1;
    const base = unit.indexOf("bytes") === 0 ? 2 : 10;
    const raw = largest / 4;
    const power = Math.pow(base, Math.floor(Math.log(raw) / Math.log(base)));
    const factors = base === 2 ? [1, 2] : [1, 2, 2.5, 5, 10];
    let step = power * factors.find((factor) => factor * power >= raw * 0.999);
    if (unit === "count" && step < 1) step = 1;
    return step;
  }
  // The unit is that of the top tick: 1 s is not written as 1000 ms.
  function ticksOf(unit, largest) {
    let scale = scaleOf(unit, largest);
    for (;;) {
      const step = niceStep(largest * scale.factor, unit);
      const ticks = Math.max(Math.ceil(largest * scale.factor / step - 1e-9), 1);
      const wider = scaleOf(unit, ticks * step / scale.factor);
      if (largest === 0 || wider.factor >= scale.factor) return { scale: scale, step: step, ticks: ticks };
      scale = wider;
    }
  }
  function clockText(seconds, withSeconds) {
    const options = { hour: "2-digit", minute: "2-digit", hour12: false };
    if (withSeconds) options.second = "2-digit";
    return new Date(seconds * 1000).toLocaleTimeString([], options);
  }

  // Queries.
  function escapeRegex(text) {
    let escaped = "";
    for (const letter of text) escaped += "\\.+*?()|[]{}^$".indexOf(letter) < 0 ? letter : "\\" + letter;
    return escaped;
  }
  function resolve(expr, step) {
    const chosen = state.instance === "" ? ".+" : escapeRegex(state.instance);
    const quoted = chosen.split("\\").join("\\\\").split("\"").join("\\\"");
    const window = Math.max(LEAST_WINDOW_S, Math.ceil(1.25 * step)) + "s";
    return expr.split("$instance").join(quoted).split("$window").join(window);
  }
  async function ask(path, parameters) {
    let answer;
    try {
      answer = await fetch(prefix + path + "?" + new URLSearchParams(parameters), { headers: { Accept: "application/json" } });
    } catch (error) {
      throw new Error("Prometheus does not answer: " + error.message);
    }
    let body = null;
    try {
      body = await answer.json();
    } catch (error) {
      throw new Error("Prometheus answers with status " + answer.status + " and no JSON");
    }
    if (body.status !== "success") throw new Error((body.errorType || "error") + ": " + (body.error || "status " + answer.status));
    return body.data;
  }
  function span() {
    const seconds = valueOf(RANGES, state.range);
    const step = Math.max(1, Math.round(seconds / POINTS));
    const end = Math.floor(Date.now() / 1000 / step) * step;
    return { start: end - seconds, end: end, step: step };
  }
  function legendOf(template, labels) {
    let text = "";
    for (const piece of template.split("{")) {
      const close = piece.indexOf("}");
      if (close < 0) {
        text += piece;
        continue;
      }
      const name = piece.slice(0, close);
      // A single node needs no name in each legend.
      const hidden = name === "instance" && (state.instance !== "" || state.instances.length < 2);
      text += (hidden ? "" : labels[name] || "") + piece.slice(close + 1);
    }
    return text.trim();
  }
  async function fetchPanel(panel, time) {
    const answers = await Promise.all(panel.queries.map(async (query) => {
      const expr = resolve(query.expr, time.step);
      try {
        return await ask("/api/v1/query_range", { query: expr, start: time.start, end: time.end, step: time.step });
      } catch (error) {
        error.query = expr;
        throw error;
      }
    }));
    const count = Math.round((time.end - time.start) / time.step) + 1;
    const series = [];
    answers.forEach((data, i) => {
      for (const result of data.result) {
        const values = new Array(count).fill(NaN);
        for (const sample of result.values) {
          const place = Math.round((sample[0] - time.start) / time.step);
          if (place >= 0 && place < count) values[place] = Number(sample[1]);
        }
        series.push({ name: legendOf(panel.queries[i].legend, result.metric), values: values });
      }
    });
    const order = panel.order || [];
    for (const one of series) {
      const rank = order.findIndex((word) => one.name.startsWith(word));
      one.rank = rank < 0 ? order.length : rank;
    }
    // A curve without a number, such as a quantile of nothing, is no data.
    return series.filter((one) => one.values.some(Number.isFinite)).sort((a, b) => a.rank - b.rank);
  }
  // The newest of the last three points: the last one may be between two scrapes.
  function lastOf(values) {
    for (let i = values.length - 1; i >= Math.max(0, values.length - 3); --i) if (Number.isFinite(values[i])) return values[i];
    return NaN;
  }

  // Tiles.
  function Tile(panel) {
    this.panel = panel;
    this.mark = make("span", { class: "mark", hidden: "" });
    this.value = make("div", { class: "value" }, ["\u2013"]);
    this.note = make("div", { class: "note", hidden: "" });
    this.svg = draw("svg", { preserveAspectRatio: "none", "aria-hidden": "true" });
    this.element = make("article", { class: "tile", title: panel.help, "data-state": "loading" }, [
      make("h2", {}, [make("span", {}, [panel.title]), this.mark]), this.value, this.note, this.svg,
    ]);
  }
  Tile.prototype.show = function (series) {
    const one = series[0];
    const last = one ? lastOf(one.values) : NaN;
    this.element.dataset.state = one ? "ok" : "empty";
    this.note.hidden = Boolean(one);
    this.element.title = this.panel.help;
    if (!one) this.note.textContent = this.panel.empty || "No data in this time.";
    const text = parts(this.panel.unit, Number.isFinite(last) ? last : 0);
    this.value.replaceChildren(Number.isFinite(last) ? text.number : "\u2013");
    if (Number.isFinite(last) && text.unit !== "") this.value.append(make("small", {}, [text.unit]));
    const bad = last > this.panel.above ? "high" : last < this.panel.below ? "low" : "";
    this.element.classList.toggle("marked", bad !== "");
    this.mark.hidden = bad === "";
    this.mark.textContent = bad === "" ? "" : "\u26a0 " + bad;
    this.spark(one ? one.values : []);
  };
  Tile.prototype.spark = function (values) {
    const width = Math.max(values.length - 1, 1);
    const top = Math.max(...values.filter(Number.isFinite), 1e-12);
    this.svg.setAttribute("viewBox", "0 0 " + width + " 34");
    this.svg.replaceChildren();
    this.svg.style.display = values.length === 0 ? "none" : "";
    const y = (value) => 32 - 28 * Math.max(value, 0) / top;
    for (const piece of pieces(values, 1)) {
      const line = piece.map((i) => i + "," + y(values[i]).toFixed(2)).join(" L");
      const area = "M" + piece[0] + ",34 L" + line + " L" + piece[piece.length - 1] + ",34 Z";
      this.svg.append(draw("path", { d: area, style: "fill:var(--c0);opacity:.12" }));
      this.svg.append(draw("path", { d: "M" + line, class: "curve", "vector-effect": "non-scaling-stroke", style: "stroke:var(--c0)" }));
    }
  };
  Tile.prototype.fail = function (error) {
    this.element.dataset.state = "error";
    this.value.textContent = "\u2013";
    this.svg.style.display = "none";
    this.note.hidden = false;
    this.note.textContent = this.element.title = error.message + (error.query ? " in " + error.query : "");
  };
  Tile.prototype.cross = function () {};
  Tile.prototype.redraw = function () {};

  // Runs of points with values; a hole of more than `bridge` points is a gap.
  function pieces(values, bridge) {
    const found = [];
    let piece = [];
    values.forEach((value, i) => {
      if (!Number.isFinite(value)) return;
      if (piece.length > 0 && i - piece[piece.length - 1] > bridge + 1) {
        found.push(piece);
        piece = [];
      }
      piece.push(i);
    });
    if (piece.length > 0) found.push(piece);
    return found;
  }

  // Cards with curves.
  function Card(panel) {
    this.panel = panel;
    this.hidden = new Set();
    this.plot = make("div", { class: "plot" });
    this.legend = make("ul", { class: "legend" });
    this.element = make("article", { class: "card", "data-state": "loading" }, [
      make("h2", {}, [panel.title]), make("p", { class: "help" }, [panel.help]), this.plot, this.legend,
    ]);
    this.tip = make("div", { class: "tip", hidden: "" });
    this.series = [];
    this.at = -1;
    this.isHere = false;
  }
  Card.prototype.show = function (series, time) {
    this.time = time;
    this.left = Math.max(0, series.length - MOST_CURVES);
    this.series = series.slice(0, MOST_CURVES);
    this.element.dataset.state = series.length > 0 ? "ok" : "empty";
    if (series.length === 0) {
      this.svg = null;
      this.legend.replaceChildren();
      this.plot.replaceChildren(make("div", { class: "none" }, [make("strong", {}, ["No data"]), this.panel.empty || "Nothing was recorded in this time."]));
      return;
    }
    this.redraw();
  };
  Card.prototype.fail = function (error) {
    this.element.dataset.state = "error";
    this.series = [];
    this.svg = null;
    this.legend.replaceChildren();
    const box = make("div", { class: "failed" }, [make("strong", {}, [error.message])]);
    if (error.query) box.append(make("code", {}, [error.query]));
    this.plot.replaceChildren(box);
  };
  Card.prototype.shown = function () {
    return this.series.filter((one) => !this.hidden.has(one.name));
  };
  Card.prototype.color = function (one) {
    return "var(--c" + (this.series.indexOf(one) % COLORS) + ")";
  };
  Card.prototype.isDashed = function (one) {
    return this.series.indexOf(one) >= COLORS;
  };
  // Upper edge of each curve: its values, or in a stack their sum with those below.
  Card.prototype.edges = function (shown) {
    if (this.panel.kind !== "stack") return shown.map((one) => one.values);
    const sum = new Array(this.series[0].values.length).fill(0);
    return shown.map((one) => one.values.map((value, i) => {
      if (!Number.isFinite(value)) return NaN;
      sum[i] += value;
      return sum[i];
    }));
  };
  Card.prototype.redraw = function () {
    if (this.series.length === 0) return;
    const width = Math.max(Math.round(this.plot.clientWidth), 200);
    const shown = this.shown();
    const edges = this.edges(shown);
    let largest = 0;
    for (const edge of edges) for (const value of edge) if (Number.isFinite(value) && value > largest) largest = value;
    const { scale, step, ticks } = ticksOf(this.panel.unit, largest);
    const names = [];
    for (let i = 0; i <= ticks; ++i) names.push(digits(Number((i * step).toPrecision(6))) + (scale.name === "%" ? "\u2009%" : ""));
    const left = Math.max(44, 10 + 6.6 * Math.max(...names.map((name) => name.length)));
    const box = { left: left, right: width - 10, top: 20, bottom: PLOT_HEIGHT - 22 };
    this.x = (i) => box.left + (box.right - box.left) * i / (this.series[0].values.length - 1);
    this.y = (value) => box.bottom - (box.bottom - box.top) * value * scale.factor / (ticks * step);
    this.box = box;
    this.svg = draw("svg", {
      viewBox: "0 0 " + width + " " + PLOT_HEIGHT, role: "img", tabindex: "0",
      "aria-label": this.panel.title + ": " + this.series.map((one) => one.name + " " + label(this.panel.unit, lastOf(one.values))).join(", "),
    });
    if (scale.name !== "" && scale.name !== "%") this.svg.append(draw("text", { x: 0, y: 9, class: "tick" }, [scale.name]));
    names.forEach((name, i) => {
      const y = Math.round(this.y(i * step / scale.factor)) + 0.5;
      this.svg.append(draw("line", { x1: box.left, x2: box.right, y1: y, y2: y, class: i === 0 ? "axis" : "grid" }));
      this.svg.append(draw("text", { x: box.left - 7, y: y + 4, "text-anchor": "end", class: "tick" }, [name]));
    });
    this.timeAxis();
    this.curves(shown, edges);
    this.svg.append(this.pointer = draw("g", {}));
    this.listen();
    this.plot.replaceChildren(this.svg, this.tip);
    this.showLegend();
    // A refresh leaves the line where the pointer is.
    this.cross(this.at, this.isHere);
  };
  Card.prototype.timeAxis = function () {
    const seconds = this.time.end - this.time.start;
    const room = Math.max(2, Math.floor((this.box.right - this.box.left) / 60));
    const every = [60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 14400, 21600, 43200].find((one) => seconds / one <= room) || 86400;
    // Ticks stand at full local hours and minutes.
    const shift = new Date(this.time.end * 1000).getTimezoneOffset() * 60;
    for (let at = Math.ceil((this.time.start - shift) / every) * every + shift; at <= this.time.end; at += every) {
      const x = this.x((at - this.time.start) / this.time.step);
      if (x < this.box.left + 12 || x > this.box.right - 10) continue;
      const middle = Math.round(x) + 0.5;
      this.svg.append(draw("line", { x1: middle, x2: middle, y1: this.box.bottom, y2: this.box.bottom + 4, class: "axis" }));
      this.svg.append(draw("text", { x: x, y: PLOT_HEIGHT - 5, "text-anchor": "middle", class: "tick" }, [clockText(at, false)]));
    }
  };
  Card.prototype.curves = function (shown, edges) {
    const isStack = this.panel.kind === "stack";
    const point = (edge) => (i) => this.x(i).toFixed(1) + "," + this.y(edge[i]).toFixed(1);
    edges.forEach((edge, k) => {
      const color = this.color(shown[k]);
      const floor = isStack && k > 0 ? edges[k - 1] : null;
      for (const piece of pieces(edge, 1)) {
        const line = piece.map(point(edge));
        const from = piece[0];
        const to = piece[piece.length - 1];
        if (piece.length === 1) {
          this.svg.append(draw("circle", { cx: this.x(from), cy: this.y(edge[from]), r: 2, class: "curve-point", style: "fill:" + color }));
          continue;
        }
        if (isStack || edges.length === 1) {
          const below = (i) => floor && Number.isFinite(floor[i]) ? this.y(floor[i]) : this.box.bottom;
          const back = piece.slice().reverse().map((i) => this.x(i).toFixed(1) + "," + below(i).toFixed(1));
          this.svg.append(draw("path", { d: "M" + line.concat(back).join(" L") + " Z", class: "area", style: "fill:" + color + ";opacity:" + (isStack ? ".45" : ".12") }));
        }
        const dash = this.isDashed(shown[k]) ? ";stroke-dasharray:5 4" : "";
        this.svg.append(draw("path", { d: "M" + line.join(" L"), class: "curve", style: "stroke:" + color + dash }));
      }
    });
  };
  Card.prototype.showLegend = function () {
    const items = this.series.map((one) => {
      const swatch = make("i", { class: this.isDashed(one) ? "dash" : "", style: "color:" + this.color(one) });
      const button = make("button", { type: "button", "aria-pressed": String(!this.hidden.has(one.name)), title: "Show or hide this curve" },
        [swatch, make("span", {}, [one.name || "all"]), make("b", {}, [label(this.panel.unit, lastOf(one.values))])]);
      button.addEventListener("click", () => {
        if (!this.hidden.delete(one.name)) this.hidden.add(one.name);
        this.redraw();
      });
      return make("li", {}, [button]);
    });
    if (this.left > 0) items.push(make("li", { class: "rest" }, [this.left + " more curves are not drawn; choose one node."]));
    this.legend.replaceChildren(...items);
  };
  Card.prototype.listen = function () {
    const count = this.series[0].values.length;
    const move = (event) => {
      const frame = this.svg.getBoundingClientRect();
      const at = Math.round((event.clientX - frame.left - this.box.left) / (this.box.right - this.box.left) * (count - 1));
      crossAll(this, Math.min(Math.max(at, 0), count - 1));
    };
    this.svg.addEventListener("pointermove", move);
    this.svg.addEventListener("pointerdown", move);
    this.svg.addEventListener("pointerleave", () => crossAll(null, -1));
    this.svg.addEventListener("blur", () => crossAll(null, -1));
    this.svg.addEventListener("keydown", (event) => {
      const by = event.key === "ArrowLeft" ? -1 : event.key === "ArrowRight" ? 1 : 0;
      if (by === 0) return;
      event.preventDefault();
      const from = this.at >= 0 ? this.at : count - 1;
      crossAll(this, Math.min(Math.max(from + by, 0), count - 1));
    });
  };
  // Draws the line at point `at`, and for the card under the pointer the box with all values; -1 takes both away.
  Card.prototype.cross = function (at, isHere) {
    this.at = at;
    this.isHere = isHere;
    this.tip.hidden = true;
    if (!this.svg) return;
    this.pointer.replaceChildren();
    if (at < 0 || at >= this.series[0].values.length) return;
    const x = this.x(at);
    this.pointer.append(draw("line", { x1: x, x2: x, y1: this.box.top, y2: this.box.bottom, class: "cross" }));
    const shown = this.shown();
    this.edges(shown).forEach((edge, k) => {
      if (!Number.isFinite(edge[at])) return;
      this.pointer.append(draw("circle", { cx: x, cy: this.y(edge[at]), r: 3.5, class: "dot", style: "fill:" + this.color(shown[k]) }));
    });
    if (!isHere) return;
    const rows = shown.map((one) => make("div", {}, [
      make("i", { style: "background:" + this.color(one) }), make("span", {}, [one.name || "all"]), make("b", {}, [label(this.panel.unit, one.values[at])]),
    ]));
    this.tip.replaceChildren(make("div", { class: "time" }, [clockText(this.time.start + at * this.time.step, true)]), ...rows);
    const isLeft = x > (this.box.left + this.box.right) / 2;
    this.tip.style.left = isLeft ? "" : x + 12 + "px";
    this.tip.style.right = isLeft ? this.plot.clientWidth - x + 12 + "px" : "";
    this.tip.hidden = false;
  };
  function crossAll(here, at) {
    for (const view of state.views) view.cross(at, view === here);
  }

  // The page.
  function notice(message, link) {
    const box = byId("notice");
    box.hidden = message === "";
    box.replaceChildren(message);
    if (link) box.append(" ", make("a", { href: prefix + "/targets" }, [link]));
  }
  async function loadInstances() {
    const time = span();
    // Each mnemod, and each memory service that is scraped itself.
    const nodes = '{__name__=~"mnemo_ready|mnemo_memory_service_device_info"}';
    const names = await ask("/api/v1/label/instance/values", { "match[]": nodes, start: time.start, end: time.end });
    state.instances = names;
    const all = names.indexOf(state.instance) < 0 && state.instance !== "" ? names.concat(state.instance) : names;
    const options = [make("option", { value: "" }, ["all (" + names.length + ")"])];
    for (const name of all) options.push(make("option", { value: name }, [name]));
    byId("instance").replaceChildren(...options);
    byId("instance").value = state.instance;
  }
  async function load() {
    const turn = ++state.turn;
    clearTimeout(state.timer);
    let broken = null;
    try {
      await loadInstances();
      notice(state.instances.length > 0 ? "" : "Prometheus has no metrics of mnemo in this time. Does it scrape mnemod?", state.instances.length > 0 ? "" : "See its targets");
    } catch (error) {
      broken = error;
      notice(error.message, "");
    }
    const time = span();
    let failures = 0;
    await Promise.all(state.views.map(async (view) => {
      try {
        if (broken) throw broken;
        const series = await fetchPanel(view.panel, time);
        if (turn === state.turn) view.show(series, time);
      } catch (error) {
        ++failures;
        if (turn === state.turn) view.fail(error);
      }
    }));
    if (turn !== state.turn) return;
    document.body.dataset.state = failures > 0 ? "error" : "ready";
    byId("clock").textContent = failures > 0 ? failures + " queries failed" : "Updated " + clockText(Date.now() / 1000, true);
    plan();
  }
  function plan() {
    clearTimeout(state.timer);
    const seconds = valueOf(REFRESHES, state.refresh);
    if (seconds === 0) return;
    // A hidden page asks nothing; it loads when it is looked at again.
    state.timer = setTimeout(() => (document.hidden ? plan() : load()), seconds * 1000);
  }
  function keepAddress() {
    const kept = new URLSearchParams({ range: state.range, refresh: state.refresh });
    if (state.instance !== "") kept.set("instance", state.instance);
    history.replaceState(null, "", location.pathname + "?" + kept);
    for (const link of document.querySelectorAll("nav a")) link.search = "?" + kept;
  }
  function change(name, value) {
    state[name] = value;
    keepAddress();
    showChoices();
    load();
  }
  function showChoices() {
    for (const button of byId("range").children) button.setAttribute("aria-pressed", String(button.textContent === state.range));
    byId("refresh").value = state.refresh;
  }
  // Storage may be forbidden; the choice then lasts as long as the page.
  function remembered() {
    try {
      return localStorage.getItem("mnemo-theme");
    } catch (error) {
      return null;
    }
  }
  function showTheme(chosen) {
    const theme = chosen || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
    document.documentElement.dataset.theme = theme;
    byId("theme").textContent = theme === "dark" ? "Light" : "Dark";
    byId("theme").setAttribute("aria-label", theme === "dark" ? "Change to light colours" : "Change to dark colours");
  }
  function toggleTheme() {
    const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    showTheme(theme);
    try {
      localStorage.setItem("mnemo-theme", theme);
    } catch (error) {
      return;
    }
  }
  function start() {
    showTheme(remembered());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => showTheme(remembered()));
    byId("theme").addEventListener("click", toggleTheme);
    for (const range of RANGES) {
      const button = make("button", { type: "button" }, [range[0]]);
      button.addEventListener("click", () => change("range", range[0]));
      byId("range").append(button);
    }
    for (const refresh of REFRESHES) byId("refresh").append(make("option", { value: refresh[0] }, [refresh[0]]));
    byId("refresh").addEventListener("change", (event) => change("refresh", event.target.value));
    byId("instance").addEventListener("change", (event) => change("instance", event.target.value));
    byId("now").addEventListener("click", load);
    for (const panel of page.panels) {
      const view = panel.kind === "value" ? new Tile(panel) : new Card(panel);
      state.views.push(view);
      byId(panel.kind === "value" ? "tiles" : "cards").append(view.element);
    }
    // Width alone: a new height is the drawing's own doing.
    let width = 0;
    new ResizeObserver(() => {
      if (byId("cards").clientWidth === width) return;
      width = byId("cards").clientWidth;
      for (const view of state.views) view.redraw();
    }).observe(byId("cards"));
    keepAddress();
    showChoices();
    load();
  }
  start();
})();
