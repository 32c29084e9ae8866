"use strict";
// Figures that a reader explores: Gram matrices with a slider over layers, streams of any dimension, projections.
(() => {
  const svgNamespace = "http://www.w3.org/2000/svg";
  const tip = document.getElementById("tip");
  const make = (name, text, properties) => Object.assign(document.createElement(name), { textContent: text }, properties);
  const draw = (name, attributes, text) => {
    const node = document.createElementNS(svgNamespace, name);
    Object.entries(attributes).forEach(([key, value]) => node.setAttribute(key, value));
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const shorts = (text) => { const b = bytes(text); return new Int16Array(b.buffer, 0, b.length / 2); };
  const signed = (value, digits) => value.toFixed(digits).replace("-", "−");
  const significant = (value) => (value === 0 ? "0" : String(Number(value.toPrecision(3)))).replace("-", "−");
  const dark = matchMedia("screen and (prefers-color-scheme: dark)");
  const colour = (index) => `k${Math.min(index, 6)}`;

  function showTip(lines, x, y) {
    tip.replaceChildren(make("b", lines[0]), ...lines.slice(1).map((line) => make("span", line)));
    tip.hidden = false;
    const { width, height } = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(8, Math.min(x - width / 2, document.documentElement.clientWidth - width - 8))}px`;
    tip.style.top = `${y - height - 14 > 8 ? y - height - 14 : y + 18}px`;
  }
  const hideTip = () => { tip.hidden = true; };

  function control(figure, label, node) {
    const wrapper = make("label", label);
    wrapper.append(node);
    figure.querySelector(".explore").append(wrapper);
    return node;
  }
  function menu(figure, label, options) {
    const select = make("select", "", { name: label.toLowerCase().replaceAll(" ", "-") });
    options.forEach(([value, text]) => select.append(make("option", text, { value })));
    return control(figure, label, select);
  }
  function slider(figure, label) {
    const input = make("input", "", { type: "range", min: 0, max: 0, value: 0, step: 1, name: label.toLowerCase() });
    const shown = make("output", "");
    control(figure, label, input).after(shown);
    return { input, shown };
  }
  function buttons(figure, actions) {
    const group = make("div", "", { className: "zoom" });
    group.setAttribute("role", "group");
    group.setAttribute("aria-label", "Zoom");
    actions.forEach(([text, label, action]) => {
      const button = make("button", text, { type: "button", onclick: action });
      button.setAttribute("aria-label", label);
      group.append(button);
    });
    figure.querySelector(".explore").append(group);
  }

  // One square window on the rows of a matrix: whole, or zoomed in to fewer rows.
  function gram(figure, data) {
    const n = data.row_text.length;
    const canvas = figure.querySelector("canvas"), context = canvas.getContext("2d");
    const sets = menu(figure, "Vectors", data.sets.map((set, index) => [index, set.label]));
    const measures = menu(figure, "Similarity", Object.entries(data.measures));
    measures.value = "centred";
    const layer = slider(figure, "Layer");
    let view = { row: 0, column: 0, size: n }, cell = null, values = null;
    const band = 12;

    function load() {
      const set = data.sets[sets.value];
      layer.input.max = set.layers.length - 1;
      layer.input.disabled = set.layers.length < 2;
      layer.shown.textContent = set.layers[layer.input.value];
      layer.input.setAttribute("aria-valuetext", set.layers[layer.input.value]);
      values = new Int8Array(bytes(set.measures[measures.value][layer.input.value]).buffer);
      paint();
    }
    const at = (row, column) => values[Math.max(row, column) * (Math.max(row, column) + 1) / 2 + Math.min(row, column)] / 100;

    function paint() {
      const side = Math.min(figure.clientWidth, 640), ratio = devicePixelRatio || 1;
      canvas.style.width = canvas.style.height = `${side}px`;
      canvas.width = canvas.height = Math.round(side * ratio);
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      context.clearRect(0, 0, side, side);
      const ramp = data.ramps[dark.matches ? "dark" : "light"], top = data.sets[sets.value].tops[measures.value];
      const step = (side - band - 3) / view.size, origin = band + 3;
      for (let i = 0; i < view.size; i += 1) {
        for (let j = 0; j < view.size; j += 1) {
          const share = (Math.max(-top, Math.min(top, at(view.row + i, view.column + j))) / top + 1) / 2;
          context.fillStyle = ramp[Math.min(ramp.length - 1, Math.floor(share * ramp.length))];
          context.fillRect(origin + j * step, origin + i * step, step + 0.4, step + 0.4);
        }
      }
      for (let i = 0; i < view.size; i += 1) {
        for (const [along, first] of [[0, view.column], [1, view.row]]) {
          const text = data.row_text[first + i];
          context.fillStyle = getComputedStyle(figure.querySelector(`.legend .${colour(data.category[text])}`)).color;
          const place = origin + i * step;
          if (along) context.fillRect(0, place, band, step + 0.4); else context.fillRect(place, 0, step + 0.4, band);
        }
      }
      context.strokeStyle = getComputedStyle(document.body).backgroundColor;
      context.lineWidth = 1;
      for (let i = 1; i < view.size; i += 1) {
        for (const [along, first] of [[0, view.column], [1, view.row]]) {
          if (data.row_text[first + i] === data.row_text[first + i - 1]) continue;
          const place = origin + i * step;
          context.beginPath();
          if (along) { context.moveTo(0, place); context.lineTo(band, place); } else { context.moveTo(place, 0); context.lineTo(place, band); }
          context.stroke();
        }
      }
      if (cell) {
        const [row, column] = cell;
        if (row >= view.row && row < view.row + view.size && column >= view.column && column < view.column + view.size) {
          context.strokeStyle = getComputedStyle(document.body).color;
          context.lineWidth = 1.5;
          context.strokeRect(origin + (column - view.column) * step - 0.5, origin + (row - view.row) * step - 0.5, step + 1, step + 1);
        }
      }
      figure.querySelector(".scale-top").textContent = signed(top, 2);
      figure.querySelector(".scale-bottom").textContent = signed(-top, 2);
    }
    function pick(x, y) {
      const box = canvas.getBoundingClientRect(), origin = band + 3, step = (box.width - origin) / view.size;
      const row = Math.floor((y - box.top - origin) / step), column = Math.floor((x - box.left - origin) / step);
      if (row < 0 || column < 0 || row >= view.size || column >= view.size) return null;
      return [view.row + row, view.column + column];
    }
    const name = (row) => `${data.texts[data.row_text[row]]} @ ${data.row_position[row]}`;
    function select(found) {
      cell = found;
      paint();
      if (!found) { hideTip(); return; }
      const box = canvas.getBoundingClientRect(), origin = band + 3, step = (box.width - origin) / view.size;
      const [row, column] = found;
      showTip([name(row), `× ${name(column)}`, `${data.measures[measures.value]} ${signed(at(row, column), 2)}`,
        `${data.sets[sets.value].label}, ${layer.shown.textContent}`],
      box.left + origin + (column - view.column + 0.5) * step, box.top + origin + (row - view.row) * step);
    }
    function zoom(factor, centre) {
      const size = Math.max(Math.min(8, n), Math.min(n, Math.round(view.size * factor)));
      const [row, column] = centre || cell || [view.row + view.size / 2, view.column + view.size / 2];
      const start = (middle, first) => Math.max(0, Math.min(n - size, Math.round(middle - size * ((middle - first) / view.size))));
      view = { row: start(row, view.row), column: start(column, view.column), size };
      canvas.classList.toggle("zoomed", size < n);
      paint();
    }
    buttons(figure, [["+", "Zoom in", () => zoom(0.5)], ["−", "Zoom out", () => zoom(2)],
      ["whole", "Show the whole matrix", () => { view = { row: 0, column: 0, size: n }; canvas.classList.remove("zoomed"); paint(); }]]);
    let held = null;
    canvas.addEventListener("pointerdown", (event) => {
      if (view.size < n) { held = { x: event.clientX, y: event.clientY, ...view }; canvas.setPointerCapture(event.pointerId); }
    });
    canvas.addEventListener("pointerup", () => { held = null; });
    canvas.addEventListener("pointercancel", () => { held = null; });
    canvas.addEventListener("pointermove", (event) => {
      if (held) {
        const step = canvas.clientWidth / view.size, limit = (value) => Math.max(0, Math.min(n - view.size, Math.round(value)));
        view.row = limit(held.row - (event.clientY - held.y) / step);
        view.column = limit(held.column - (event.clientX - held.x) / step);
        hideTip();
        paint();
      } else if (event.pointerType === "mouse") select(pick(event.clientX, event.clientY));
    });
    canvas.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") select(null); });
    canvas.addEventListener("click", (event) => select(pick(event.clientX, event.clientY)));
    canvas.addEventListener("dblclick", (event) => zoom(0.5, pick(event.clientX, event.clientY)));
    canvas.addEventListener("blur", () => select(null));
    canvas.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
      if (step) {
        const inside = (value, first) => Math.max(first, Math.min(first + view.size - 1, value));
        const [row, column] = cell || [view.row, view.column];
        select([inside(row + step[0], view.row), inside(column + step[1], view.column)]);
      } else if (event.key === "+") zoom(0.5);
      else if (event.key === "-") zoom(2);
      else if (event.key === "Escape") select(null);
      else return;
      event.preventDefault();
    });
    sets.addEventListener("input", () => { layer.input.value = 0; load(); });
    measures.addEventListener("input", load);
    layer.input.addEventListener("input", () => { load(); if (cell) select(cell); });
    dark.addEventListener("change", paint);
    addEventListener("resize", paint);
    layer.input.max = data.sets[0].layers.length - 1;
    layer.input.value = layer.input.max;
    load();
  }

  // A plane with axes on which points, and lines through them, are drawn; it can be zoomed and moved.
  function plane(figure, options) {
    const svg = figure.querySelector("svg.plane");
    const place = { left: options.axes ? 52 : 8, right: 10, top: 10, bottom: options.axes ? 38 : 10 };
    let content = null, whole = null, view = null, current = -1, pixels = [];
    const size = () => { const width = Math.max(280, figure.clientWidth); return { width, height: Math.min(440, Math.max(280, width * 0.6)) }; };

    function ticks(low, high, target) {
      const raw = (high - low) / target, power = 10 ** Math.floor(Math.log10(raw));
      const step = [1, 2, 5, 10].map((factor) => factor * power).find((value) => value >= raw);
      const found = [];
      for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-9; value += step) found.push(Math.abs(value) < step * 1e-9 ? 0 : value);
      return found;
    }
    function paint() {
      const { width, height } = size();
      svg.setAttribute("width", width);
      svg.setAttribute("height", height);
      svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
      const x = (value) => place.left + (value - view.x[0]) / (view.x[1] - view.x[0]) * (width - place.left - place.right);
      const y = (value) => height - place.bottom - (value - view.y[0]) / (view.y[1] - view.y[0]) * (height - place.top - place.bottom);
      const nodes = [];
      if (options.axes) {
        ticks(...view.y, 5).forEach((value) => {
          nodes.push(draw("path", { d: `M${place.left} ${y(value)}H${width - place.right}`, class: "grid" }));
          nodes.push(draw("text", { x: place.left - 7, y: y(value) + 4, class: "muted end" }, significant(value)));
        });
        const every = Math.ceil((view.x[1] - view.x[0]) / Math.max(1, Math.floor((width - 60) / 34)));
        for (let value = Math.ceil(view.x[0]); value <= view.x[1]; value += 1) {
          if (value % every === 0) nodes.push(draw("text", { x: x(value), y: height - place.bottom + 16, class: "muted mid" }, options.xName(value)));
        }
        nodes.push(draw("text", { x: width / 2, y: height - 5, class: "muted mid" }, options.xLabel));
      } else {
        nodes.push(draw("rect", { x: 1, y: 1, width: width - 2, height: height - 2, class: "axis" }));
      }
      const clip = { left: place.left - 5, right: width - place.right + 5, top: place.top - 5, bottom: height - place.bottom + 5 };
      pixels = content.points.map((point) => [x(point.x), y(point.y)]);
      (content.lines || []).forEach((line) => {
        const inside = line.points.map((index) => pixels[index]);
        nodes.push(draw("path", { d: "M" + inside.map((p) => `${p[0].toFixed(1)} ${p[1].toFixed(1)}`).join("L"), class: `stream ${line.colour}` }));
      });
      content.points.forEach((point, index) => {
        const [px, py] = pixels[index];
        if (px < clip.left || px > clip.right || py < clip.top || py > clip.bottom) return;
        nodes.push(draw("circle", { cx: px.toFixed(1), cy: py.toFixed(1), r: content.lines ? 2.2 : 4, class: `dot ${point.colour}` }));
      });
      if (current >= 0 && pixels[current]) nodes.push(draw("circle", { cx: pixels[current][0], cy: pixels[current][1], r: 7, class: "cursor" }));
      const title = draw("title", {}, options.title);
      svg.replaceChildren(title, ...nodes);
      svg.dataset.points = pixels.map((p) => p.map((v) => v.toFixed(1)).join(",")).join(" ");
    }
    function select(index) {
      current = index;
      paint();
      if (index < 0) { hideTip(); return; }
      const box = svg.getBoundingClientRect();
      showTip(content.points[index].tip(), box.left + pixels[index][0], box.top + pixels[index][1]);
    }
    function nearest(event) {
      const box = svg.getBoundingClientRect();
      let best = -1, least = 24 * 24;
      pixels.forEach(([px, py], index) => {
        const distance = (px + box.left - event.clientX) ** 2 + (py + box.top - event.clientY) ** 2;
        if (distance < least) [best, least] = [index, distance];
      });
      return best;
    }
    const range = (values, margin) => {
      const low = Math.min(...values), high = Math.max(...values), extra = (high > low ? high - low : Math.abs(high) || 1) * margin;
      return [low - extra, high + extra];
    };
    function zoom(factor) {
      const focus = current >= 0 ? content.points[current] : { x: (view.x[0] + view.x[1]) / 2, y: (view.y[0] + view.y[1]) / 2 };
      const around = ([low, high], middle) => [middle - (middle - low) * factor, middle + (high - middle) * factor];
      view = { x: options.axes ? view.x : around(view.x, focus.x), y: around(view.y, focus.y) };
      paint();
    }
    buttons(figure, [["+", "Zoom in", () => zoom(0.5)], ["−", "Zoom out", () => zoom(2)],
      ["whole", "Show everything", () => { view = { x: [...whole.x], y: [...whole.y] }; paint(); }]]);
    let held = null;
    svg.addEventListener("pointerdown", (event) => { held = { x: event.clientX, y: event.clientY, view: { x: [...view.x], y: [...view.y] }, moved: false }; });
    addEventListener("pointerup", () => { held = null; });
    svg.addEventListener("pointermove", (event) => {
      if (held && event.pointerType === "mouse") {
        const box = svg.getBoundingClientRect();
        const shift = ([low, high], by) => [low + by * (high - low), high + by * (high - low)];
        if (!options.axes) view.x = shift(held.view.x, (held.x - event.clientX) / box.width);
        view.y = shift(held.view.y, (event.clientY - held.y) / box.height);
        hideTip();
        paint();
      } else if (event.pointerType === "mouse") select(nearest(event));
    });
    svg.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") select(-1); });
    svg.addEventListener("click", (event) => select(nearest(event)));
    svg.addEventListener("blur", () => select(-1));
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -(options.stride || 1), ArrowDown: options.stride || 1 }[event.key];
      if (step && current + step >= -1 && current + step < content.points.length) select(Math.max(0, current + step));
      else if (event.key === "+") zoom(0.5);
      else if (event.key === "-") zoom(2);
      else if (event.key === "Escape") select(-1);
      else return;
      event.preventDefault();
    });
    addEventListener("resize", () => { if (content) paint(); });
    return {
      show(found) {
        content = found;
        current = -1;
        whole = { x: range(found.points.map((p) => p.x), options.axes ? 0.03 : 0.05), y: range(found.points.map((p) => p.y), 0.05) };
        view = { x: [...whole.x], y: [...whole.y] };
        paint();
      },
    };
  }

  function streams(figure, data) {
    const listed = menu(figure, "Largest F", data.listed.map((each) => [each.dimension, each.label]));
    const number = control(figure, "Dimension", make("input", "", { type: "number", name: "dimension", min: 0, max: data.n_dimensions - 1, step: 1 }));
    const note = figure.querySelector(".explore-note");
    const depth = (value) => (value === 0 ? "embedding" : `depth ${value}`);
    const view = plane(figure, { axes: true, title: "Streams by depth", xLabel: "depth of the residual stream (0: embedding)", xName: String, stride: data.depths });
    function show(dimension) {
      number.value = dimension;
      const index = data.dimensions.indexOf(Number(dimension));
      if (listed.querySelector(`option[value="${dimension}"]`)) listed.value = dimension;
      note.textContent = index < 0 ? `Dimension ${dimension} is not on this page; expected a number from 0 to ${data.n_dimensions - 1} that is.` : "";
      if (index < 0) return;
      const values = shorts(data.values[index]), factor = data.factors[index], points = [], lines = [];
      data.texts.forEach((text, t) => {
        const own = [];
        for (let l = 0; l < data.depths; l += 1) {
          const value = values[t * data.depths + l] * factor;
          own.push(points.length);
          points.push({ x: l, y: value, colour: colour(data.category[t]), tip: () => [text, `${data.categories[data.category[t]]} · ${depth(l)}`, `dimension ${dimension}: ${significant(value)}`] });
        }
        lines.push({ points: own, colour: colour(data.category[t]) });
      });
      view.show({ points, lines });
    }
    listed.addEventListener("input", () => show(Number(listed.value)));
    number.addEventListener("change", () => show(Number(number.value)));
    show(data.listed.length ? data.listed[0].dimension : data.dimensions[0]);
  }

  function projection(figure, data) {
    const unique = (key) => [...new Set(data.sets.map((set) => set[key]))];
    const site = menu(figure, "Vectors", unique("site").map((name) => [name, name]));
    const method = menu(figure, "Method", unique("method").map((name) => [name, name]));
    const layer = slider(figure, "Layer"), note = figure.querySelector(".explore-note");
    const view = plane(figure, { axes: false, title: "Rows in the plane" });
    function show() {
      const set = data.sets.find((each) => each.site === site.value && each.method === method.value);
      layer.input.max = set.planes.length - 1;
      const chosen = set.planes[layer.input.value], values = shorts(chosen.points);
      layer.shown.textContent = chosen.layer;
      layer.input.setAttribute("aria-valuetext", chosen.layer);
      note.textContent = chosen.note ? `Share of the variance along the two axes: ${chosen.note}.` : "";
      view.show({ points: data.row_text.map((t, row) => {
        const at = [values[2 * row] * chosen.factor, values[2 * row + 1] * chosen.factor];
        return { x: at[0], y: at[1], colour: colour(data.category[t]), tip: () => [`${data.texts[t]} @ ${data.row_position[row]}`, data.categories[data.category[t]], `(${at.map(significant).join(", ")})`] };
      }) });
    }
    site.addEventListener("input", () => { layer.input.value = 0; show(); });
    method.addEventListener("input", show);
    layer.input.addEventListener("input", show);
    layer.input.max = data.sets[0].planes.length - 1;
    layer.input.value = layer.input.max;
    show();
  }

  for (const figure of document.querySelectorAll("figure[data-explorer]")) {
    const data = JSON.parse(figure.querySelector("script").textContent);
    ({ gram, streams, projection })[figure.dataset.explorer](figure, data);
  }
})();
