"use strict";
(() => {
  const tip = document.getElementById("tip");
  const make = (name, text, properties) => Object.assign(document.createElement(name), { textContent: text }, properties);
  const numbers = (text) => text.split(" ").filter(Boolean).map(Number);

  // Tooltips: each drawing has a list of marks, which the pointer, the arrow keys and a tap step through.
  function cellMarks(svg, data) {
    const [width, height] = numbers(svg.dataset.cell);
    const xs = numbers(svg.dataset.x), ys = numbers(svg.dataset.y);
    const lines = (row, column) => data.fields.map(([label, values]) => {
      const value = Array.isArray(values) ? values[row][column] : values;
      return value === "" ? "" : `${label}: ${value}`;
    }).filter(Boolean);
    const within = (edges, size, at) => edges.findIndex((edge) => at >= edge && at < edge + size);
    return {
      count: xs.length * ys.length,
      columns: xs.length,
      find(x, y) {
        const row = within(ys, height, y), column = within(xs, width, x);
        return row < 0 || column < 0 ? -1 : row * xs.length + column;
      },
      box: (index) => [xs[index % xs.length], ys[Math.floor(index / xs.length)], width, height],
      text(index) {
        const row = Math.floor(index / xs.length), column = index % xs.length;
        return [data.rows[row] + (data.joiner || " · ") + data.cols[column], ...lines(row, column)];
      },
    };
  }

  function pointMarks(svg, data) {
    const points = svg.dataset.points.split(" ").filter(Boolean).map((pair) => pair.split(",").map(Number));
    return {
      count: points.length,
      columns: points.length,
      find(x, y) {
        let best = -1, nearest = 28 * 28;
        points.forEach(([px, py], index) => {
          const distance = (px - x) ** 2 + (py - y) ** 2;
          if (distance < nearest) [best, nearest] = [index, distance];
        });
        return best;
      },
      box: (index) => [points[index][0] - 6, points[index][1] - 6, 12, 12],
      text: (index) => data.tips[index],
    };
  }

  function showTip(lines, rectangle) {
    tip.replaceChildren(make("b", lines[0]), ...lines.slice(1).map((line) => make("span", line)));
    tip.hidden = false;
    const { width, height } = tip.getBoundingClientRect();
    const left = rectangle.left + rectangle.width / 2 - width / 2;
    const above = rectangle.top - height - 8;
    tip.style.left = `${Math.max(8, Math.min(left, document.documentElement.clientWidth - width - 8))}px`;
    tip.style.top = `${above > 8 ? above : rectangle.bottom + 8}px`;
  }

  function explain(svg, data) {
    const marks = svg.dataset.kind === "grid" ? cellMarks(svg, data) : pointMarks(svg, data);
    if (!marks.count) return;
    const cursor = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    cursor.setAttribute("class", "cursor");
    let current = -1;
    const select = (index) => {
      current = index;
      if (index < 0) {
        cursor.remove();
        tip.hidden = true;
        return;
      }
      marks.box(index).forEach((value, i) => cursor.setAttribute(["x", "y", "width", "height"][i], value));
      cursor.setAttribute("rx", svg.dataset.kind === "grid" ? 0 : 6);
      svg.append(cursor);
      showTip(marks.text(index), cursor.getBoundingClientRect());
    };
    const at = (event) => {
      const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      return marks.find(point.x, point.y);
    };
    svg.tabIndex = 0;
    svg.addEventListener("pointermove", (event) => { if (event.pointerType === "mouse") select(at(event)); });
    svg.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") select(-1); });
    svg.addEventListener("click", (event) => select(at(event)));
    svg.addEventListener("focus", () => { if (current < 0 && svg.matches(":focus-visible")) select(0); });
    svg.addEventListener("blur", () => select(-1));
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -marks.columns, ArrowDown: marks.columns }[event.key];
      if (event.key === "Escape") select(-1);
      if (event.key === "Home") select(0);
      if (event.key === "End") select(marks.count - 1);
      if (step && current + step >= 0 && current + step < marks.count) select(current + step);
      if (step || event.key === "Home" || event.key === "End") event.preventDefault();
    });
  }

  for (const figure of document.querySelectorAll("figure")) {
    const data = JSON.parse(figure.querySelector("script").textContent);
    figure.querySelectorAll(".drawing svg").forEach((svg) => explain(svg, data));
  }
  addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });

  // Maps of experts: one layer at a time.
  for (const group of document.querySelectorAll("[data-layers]")) {
    const maps = [...group.querySelectorAll("figure")];
    if (maps.length < 2) continue;
    const picker = make("div", "Layer", { className: "layer-picker" });
    picker.setAttribute("role", "group");
    picker.setAttribute("aria-label", "Layer of the map");
    const choose = (chosen) => maps.forEach((map, index) => {
      map.classList.toggle("out", index !== chosen);
      picker.querySelectorAll("button")[index].setAttribute("aria-pressed", String(index === chosen));
    });
    maps.forEach((map, index) => {
      picker.append(make("button", map.dataset.layer, { type: "button", onclick: () => choose(index) }));
    });
    group.prepend(picker);
    choose(maps.length - 1);
  }

  // Table of neurons: opening, sorting, filtering.
  const table = document.querySelector("table.neurons");
  if (!table) return;
  const bodies = [...table.tBodies];
  for (const body of bodies) {
    const name = body.querySelector(".name");
    const button = make("button", name.textContent, { type: "button", className: "opener" });
    button.setAttribute("aria-expanded", "false");
    button.setAttribute("aria-label", `Examples of neuron ${name.textContent}`);
    name.replaceChildren(button);
    body.classList.add("closed");
    body.querySelector(".row").addEventListener("click", (event) => {
      if (event.target.closest("a") || String(getSelection())) return;
      button.setAttribute("aria-expanded", String(!body.classList.toggle("closed")));
    });
  }
  const value = (body, column, kind) => {
    const text = body.rows[0].cells[column].dataset.value;
    return kind === "text" ? text : text === "" || isNaN(text) ? NaN : Number(text);
  };
  table.querySelectorAll("thead th").forEach((header, column, headers) => {
    const kind = header.dataset.sort;
    const button = make("button", header.textContent, { type: "button" });
    header.replaceChildren(button);
    button.addEventListener("click", () => {
      const first = kind === "text" || ["Neuron", "q", "Expert"].includes(button.textContent) ? "ascending" : "descending";
      const other = first === "ascending" ? "descending" : "ascending";
      const order = header.getAttribute("aria-sort") === first ? other : first;
      headers.forEach((each) => each.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      bodies.sort((a, b) => {
        const x = value(a, column, kind), y = value(b, column, kind);
        if (kind === "text") return sign * x.localeCompare(y);
        return Number.isNaN(x) || Number.isNaN(y) ? Number.isNaN(x) - Number.isNaN(y) : sign * (x - y);
      });
      table.append(...bodies);
    });
  });
  const form = document.querySelector("form.controls");
  const filter = () => {
    const wanted = form.elements.search.value.trim().toLowerCase();
    let shown = 0;
    for (const body of bodies) {
      const fits = (!form.elements.function.value || body.dataset.function === form.elements.function.value)
        && (!form.elements.layer.value || body.dataset.layer === form.elements.layer.value)
        && (!wanted || body.textContent.toLowerCase().includes(wanted));
      body.classList.toggle("out", !fits);
      shown += fits;
    }
    form.querySelector("output").textContent = `${shown} of ${bodies.length} shown`;
  };
  form.hidden = false;
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  filter();
})();
