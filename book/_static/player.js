// The player of the welcome page: a photograph, an encoder, a method; what the method shows, and a sentence about it.
(() => {
  const data = window.lfxWelcome, root = document.getElementById("lfx-player");
  if (!data || !root) return;
  const here = document.currentScript.src.replace(/player\.js.*$/, "welcome/");
  const names = { photograph: Object.keys(data.photographs), encoder: Object.keys(data.encoders), method: Object.keys(data.methods) };
  const drawn = names.method.filter((method) => method !== "examples");
  const chapters = { ig: ["1", "01_completeness"], relax: ["6", "06_relax"], urelax: ["6", "06_relax"], nemu: ["7", "07_nem_u"],
    lafam: ["10", "10_comparison"], examples: ["3", "03_consistency_examples"] };
  const chosen = { photograph: "cat", encoder: "simclr", method: "nemu" };
  const make = (tag, props = {}, ...inside) => { const e = Object.assign(document.createElement(tag), props); e.append(...inside); return e; };

  const stage = make("canvas", { width: 448, height: 448 }), sentence = make("p"), more = make("a");
  stage.setAttribute("role", "img"); sentence.setAttribute("aria-live", "polite");
  const group = (kind, title, label) => make("fieldset", { className: `lfx-${kind}` }, make("legend", { textContent: title }),
    ...names[kind].map((name) => {
      const input = make("input", { type: "radio", name: `lfx-${kind}`, value: name, checked: chosen[kind] === name });
      input.onchange = () => { chosen[kind] = name; show(); };
      return make("label", {}, input, label(name));
    }));
  const thumb = (name) => {
    const picture = make("span", { className: "lfx-thumb" }), row = names.photograph.indexOf(name);
    picture.style.backgroundImage = `url(${here}photographs.webp)`;
    picture.style.backgroundPosition = `${100 * row / (names.photograph.length - 1)}% 0`;
    picture.setAttribute("role", "img"); picture.setAttribute("aria-label", name);
    return picture;
  };
  root.append(stage, make("div", { className: "lfx-choices" }, group("photograph", "Photograph", thumb),
      group("encoder", "Encoder", (name) => data.encoders[name].label), group("method", "Method", (name) => data.methods[name])),
    make("div", { className: "lfx-said" }, sentence, more));

  const photographs = new Image(), maps = new Image(), pen = stage.getContext("2d"), size = stage.width;
  photographs.src = `${here}photographs.webp`; maps.src = `${here}maps.webp`;
  photographs.onload = maps.onload = () => show();

  const scale = data.shown / data.side, whole = [0, 0, data.side];
  const cut = (number, [left, top, side], x, y, wide) =>
    pen.drawImage(photographs, number * data.shown + left * scale, top * scale, side * scale, side * scale, x, y, wide, wide);
  const show = () => {
    const number = names.photograph.indexOf(chosen.photograph);
    const state = data.states.find((one) => Object.keys(chosen).every((kind) => one[kind] === chosen[kind]));
    sentence.textContent = state.sentence;
    const [chapter, file] = chapters[chosen.method];
    more.textContent = `${data.methods[chosen.method]}: Chapter ${chapter}`; more.href = `../notebooks/${file}.html`;
    stage.setAttribute("aria-label", `The photograph “${chosen.photograph}”, ${data.methods[chosen.method]}, `
      + `${data.encoders[chosen.encoder].long}. ${state.sentence}`);
    if (!photographs.complete || !maps.complete) return;
    pen.clearRect(0, 0, size, size);
    if (chosen.method === "examples") {
      const half = size / 2;
      cut(number, whole, 0, 0, half);
      state.numbers.nearest.forEach(([owner, piece, cosine], place) => {
        const x = ((place + 1) % 2) * half, y = Math.floor((place + 1) / 2) * half;
        cut(owner, [...data.corners[piece], data.piece], x, y, half);
        pen.fillStyle = "#000b"; pen.fillRect(x, y + half - 34, 122, 34);
        pen.fillStyle = "#fff"; pen.font = "20px sans-serif"; pen.fillText(`cosine ${cosine.toFixed(2)}`, x + 8, y + half - 10);
      });
      return;
    }
    cut(number, whole, 0, 0, size);
    if (!state.numbers) return;
    const column = names.encoder.indexOf(chosen.encoder) * drawn.length + drawn.indexOf(chosen.method), side = data.coarse;
    pen.drawImage(maps, column * side, number * side, side, side, 0, 0, size, size);
    const [left, top, right, bottom] = data.photographs[chosen.photograph].box.map((at) => at * size / data.side);
    pen.setLineDash([8, 6]); pen.lineWidth = 2; pen.strokeStyle = "#fff"; pen.strokeRect(left, top, right - left, bottom - top);
  };
  show();
})();
