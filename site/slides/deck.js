// Lays a lesson's blocks out on slides of 1280 x 720, then starts reveal.js. What does not fit goes on to the next slide:
// prose between two paragraphs or items, code and printed text between two lines. Figures are scaled. Slides that would
// be nearly empty join their neighbours.
(async function () {
  const ROOM = { width: 1200, height: 650 }, GAP = 14;
  const LARGEST = 1.6;                                  // of a figure's own size
  const LINE = 101, SMALL = 0.8;                        // characters in a line of printed text; how small its letters may get

  const root = document.documentElement;
  const dark = new URLSearchParams(location.search).has("dark") || stored() === "dark";
  function stored() { try { return localStorage.getItem("theme"); } catch { return null; } }
  function setTheme(name) { root.dataset.theme = name; try { localStorage.setItem("theme", name); } catch { /* a private window */ } }
  root.dataset.theme = dark ? "dark" : "light";

  const slides = document.querySelector(".slides"), parts = [...slides.querySelectorAll(".part")];
  const lesson = document.title;

  await document.fonts.ready;
  await Promise.all(["400 20px 'Source Sans 3'", "700 20px 'Source Sans 3'", "italic 20px 'Source Sans 3'",
    "20px 'Source Code Pro'", "700 20px 'Source Code Pro'"].map(font => document.fonts.load(font)));
  await Promise.all([...document.images].map(image => image.decode().catch(() => {})));
  await MathJax.startup.promise;
  await MathJax.typesetPromise(parts);

  // Measuring happens in a slide of full size that nobody sees.
  const bench = document.createElement("div");
  bench.id = "measure";
  bench.className = "reveal";
  bench.innerHTML = `<div class="slides" style="position:static;display:block;width:${ROOM.width}px"><div class="room" style="height:auto;width:${ROOM.width}px;display:flow-root"></div></div>`;
  document.body.append(bench);
  const trial = bench.querySelector(".room");

  for (const [k, part] of parts.entries()) part.replaceWith(stack(part, k === 0));
  bench.remove();
  const all = [...slides.querySelectorAll(".slide")];
  all.forEach((slide, k) => { slide.querySelector(".where").lastElementChild.textContent = `${k + 1} / ${all.length}`; });

  function stack(part, first) {
    const stack = document.createElement("section"), notes = part.querySelector("aside.notes");
    const pages = paginate(atoms([...part.querySelectorAll(":scope > .block")]));
    pages.forEach((page, k) => {
      const slide = document.createElement("section");
      slide.className = "slide";
      slide.dataset.part = part.dataset.title;
      const where = first ? "" : (k === 0 ? lesson : `${lesson} — ${part.dataset.title}`);
      slide.innerHTML = `<div class="where"><span></span><span></span></div><div class="room"></div>`;
      slide.querySelector(".where span").textContent = where;
      const room = slide.querySelector(".room");
      hold(page);
      room.append(...page);
      room.classList.toggle("opening", first && k === 0);
      const vote = page.some(node => node.matches(".poll")) && !page.some(node => node.querySelector("h1, h2, h3"));
      room.classList.toggle("centred", (first && k === 0) || vote);
      const copy = notes.cloneNode(true);
      if (k > 0) copy.insertAdjacentHTML("afterbegin", `<p><em>Slide ${k + 1} of ${pages.length} of this section.</em></p>`);
      slide.append(copy);
      stack.append(slide);
    });
    return stack;
  }

  // Until the lecturer goes on, the class sees the figure, but neither the answer nor the words that give it away.
  function hold(page) {
    const answers = page.filter(node => node.matches(".answer")), first = page.indexOf(answers[0]);
    let next = 0;
    page.forEach((node, k) => {
      const hidden = node.matches(".answer") ? node.querySelector("strong") : node;
      if (!answers.length || !(hidden !== node || node.matches(".printed") || (k > first && node.matches(".prose")))) return;
      hidden.classList.add("fragment");
      hidden.dataset.fragmentIndex = Math.min(next, answers.length - 1);
      next += hidden !== node;
    });
  }

  // Prose becomes one atom a paragraph or list item, so that a page can end between them.
  function atoms(blocks) {
    const found = [];
    let start = "";
    for (const block of blocks) {
      start = block.dataset.start || start;
      if (block.classList.contains("begin")) {
        if (!start) start = "code";
        continue;
      }
      if (block.classList.contains("prose")) {
        for (const child of [...block.children]) {
          const pieces = /^(UL|OL)$/.test(child.tagName) ? items(child) : [child];
          for (const piece of pieces) {
            const atom = document.createElement("div");
            atom.className = "block prose";
            atom.append(piece);
            found.push({ node: atom, start, heading: /^H[1-3]$/.test(piece.tagName) });
            start = "";
          }
        }
      } else {
        found.push({ node: block, start });
        start = "";
      }
    }
    return found;
  }

  function items(list) {
    return [...list.children].map((item, k) => {
      const copy = list.cloneNode(false);
      if (list.tagName === "OL") copy.start = (list.start || 1) + k;
      copy.style.margin = "0 0 -8px";
      copy.append(item);
      return copy;
    });
  }

  function paginate(list) {
    const pages = [];
    let page = [], used = 0, drawn = false;
    const room = () => ROOM.height - used;
    const close = () => {
      const moved = page.length > 1 && page.at(-1).heading ? [page.pop()] : [];   // no heading stays behind alone
      if (page.length) pages.push(page);
      page = []; used = 0; drawn = false;
      moved.forEach(put);
    };
    const put = atom => {
      page.push(atom);
      used += atom.height + (page.length > 1 ? GAP : 0);
      drawn ||= /figure|printed|player/.test(atom.node.className);
    };
    const queue = [...list];
    // A few last lines of prose stay on the page: the figure becomes a little smaller for them, or else the letters.
    const fitsTight = (atom, queue) => {
      if (!page.length || !page.every(other => other.node.matches(".prose, .figure")) || !atom.node.matches(".prose")) return false;
      const rest = [atom];
      for (const next of queue) { if (next.start || !next.node.matches(".prose")) break; rest.push(next); }
      const more = rest.reduce((sum, next) => sum + GAP + (next.height ?? measure(next) ?? next.height), 0);
      const drawings = page.filter(other => other.size).reduce((sum, other) => sum + other.height, 0);
      return used + more <= ROOM.height + (drawings ? 0.3 * drawings : 0.14 * ROOM.height);
    };
    // A poll joins what was said before it, or since the last heading, where that leaves the letters large. One without a
    // question of its own asks about the figure before it.
    const openPoll = (atom, queue) => {
      const end = queue.findIndex(next => !next.node.matches(".poll")), poll = [atom, ...queue.slice(0, end < 0 ? undefined : end)];
      poll.forEach(measure);
      const heading = page.findLastIndex(other => other.heading);
      const bare = atom.node.matches(".poll"), kinds = bare ? ".prose, .printed, .figure" : ".prose, .printed";
      const fits = since => page.slice(since).every(other => other.node.matches(kinds))
        && [...page.slice(since), ...poll].reduce((sum, one) => sum + GAP + (one.size ? 0.8 : 1) * one.height, 0)
          <= (bare ? 1 : 0.75) * ROOM.height + GAP;
      if (fits(0)) return;
      const kept = heading > 0 && fits(heading) ? page.splice(heading) : [];
      close();
      kept.forEach(put);
    };
    while (queue.length) {
      const atom = queue.shift();
      const voted = page.at(-1)?.node.matches(".poll") && !atom.node.matches(".poll");
      if (atom.start === "poll") openPoll(atom, queue);
      if (voted || /page|reveal/.test(atom.start) || (atom.start === "code" && drawn)) close();
      atom.opens = atom.start;
      atom.start = "";
      measure(atom);
      const gap = page.length ? GAP : 0;
      if (atom.node.matches(".live") && (!page.length || atom.height + gap > room())) continue;
      if ((atom.size ? 0.85 : 1) * atom.height + gap <= room() || fitsTight(atom, queue)) { put(atom); continue; }
      const rest = page.length ? null : split(atom);
      if (page.length) { close(); queue.unshift(atom); } else { put(atom); if (rest) queue.unshift(rest); }
    }
    close();
    tidy(pages);
    return pages.map(page => { grow(page); enlarge(page); return page.map(atom => atom.node); });
  }

  // A slide that is nearly empty joins the one before or after it, where both fit and no answer is shown too early. Words
  // that are left alone on a slide take the paragraphs before them along, code its announcement, and printed text the figure
  // before it or what is printed next.
  function tidy(pages) {
    const has = (page, kind) => page.some(atom => atom.node.matches(kind) || atom.node.querySelector(kind));
    const tall = (page, share = 1) => page.reduce((sum, atom) => sum + GAP + (atom.size ? share : 1) * atom.height, -GAP);
    const thin = page => tall(page) < 0.38 * ROOM.height;
    const join = (one, two) => !has(one, ".poll, h1") && !has(two, ".poll") && two[0].opens !== "reveal"
      && (thin(one) || thin(two)) && tall([...one, ...two], 0.8) <= ROOM.height;
    for (;;) {
      const pairs = pages.slice(1).map((page, k) => [pages[k], page]).filter(([one, two]) => join(one, two));
      if (!pairs.length) break;
      const [one, two] = pairs.sort((a, b) => tall(a.flat()) - tall(b.flat()))[0];       // the emptiest first
      pages.splice(pages.indexOf(one), 2, [...one, ...two]);
    }
    for (let k = 1; k < pages.length; k += 1) {
      const [before, page] = [pages[k - 1], pages[k]];
      const alone = page[0].opens === "" && page.every(atom => atom.node.matches(".prose") && !atom.heading);
      const goesOn = atom => atom.node.matches(".prose") && !atom.heading
        && (alone || (page[0].opens === "code" && atom.node.textContent.trim().endsWith(":")));
      const said = atom => atom.size && page.every(other => other.node.matches(".printed"));
      while (thin(page) && before.length > 1 && (goesOn(before.at(-1)) || said(before.at(-1))) && !thin(before.slice(0, -1))) {
        page.unshift(before.pop());
      }
      const printed = before.every(atom => atom.node.matches(".printed"));
      while (printed && thin(before) && page[0].node.matches(".printed, .answer") && !thin(page.slice(1))) before.push(page.shift());
    }
  }

  function height(node) {
    trial.replaceChildren(node);
    return Math.ceil(node.getBoundingClientRect().height);
  }

  function measure(atom) {
    const image = atom.node.matches(".figure") && atom.node.querySelector("img");
    if (image) {
      atom.size = { width: image.naturalWidth, height: image.naturalHeight };
      // A figure is put on a page only where it keeps its own size, or as much of that as a whole page could give it.
      atom.height = Math.ceil(atom.size.height * Math.min(1, ROOM.width / atom.size.width, ROOM.height / atom.size.height));
      scale(atom, atom.height / atom.size.height);
    } else if (atom.node.matches(".player")) {
      const inner = atom.node.firstElementChild, wide = (trial.replaceChildren(atom.node), inner.scrollWidth), high = inner.offsetHeight;
      const factor = Math.min(1.35, ROOM.width / wide, (ROOM.height - 10) / high);
      inner.style.zoom = factor;
      atom.height = height(atom.node);
    } else {
      if (atom.node.matches(".printed")) keepLines(atom.node);
      atom.height = height(atom.node);
      const wide = atom.node.scrollWidth;
      if (wide > ROOM.width) { atom.node.style.zoom = ROOM.width / wide; atom.height = height(atom.node); }
    }
  }

  // A table in printed text gets smaller letters rather than broken lines, as long as they can be read.
  function keepLines(node) {
    const longest = Math.max(...[...node.querySelectorAll(".line")].map(line => line.textContent.length));
    if (longest > LINE && LINE / longest >= SMALL) node.querySelector(".lines").style.fontSize = `${19.2 * LINE / longest}px`;
  }

  function scale(atom, factor) {
    const image = atom.node.querySelector("img");
    image.style.width = `${Math.floor(atom.size.width * factor)}px`;
    image.style.height = `${Math.floor(atom.size.height * factor)}px`;
    image.style.verticalAlign = "top";
    atom.height = Math.floor(atom.size.height * factor);
  }

  // The figures of a page share the room that is left on it.
  function grow(page) {
    const figures = page.filter(atom => atom.size);
    if (!figures.length) return;
    const others = page.filter(atom => !atom.size).reduce((sum, atom) => sum + atom.height, 0);
    const free = ROOM.height - others - GAP * (page.length - 1), own = figures.reduce((sum, atom) => sum + atom.size.height, 0);
    for (const atom of figures) scale(atom, Math.min(LARGEST, free / own, ROOM.width / atom.size.width));
  }

  // Words alone, or code alone, are set as large as the slide has room for, without breaking a line of code.
  function enlarge(page) {
    if (page.some(atom => atom.node.matches(".figure, .player, .html") || atom.node.style.zoom)) return;
    const largest = page.some(atom => atom.node.matches(".poll")) ? [1.8, 1.6, 1.5] : [];
    for (const factor of [...largest, 1.4, 1.3, 1.2, 1.1, 1, 0.95, 0.9, 0.86]) {
      let wide = false;                                                 // a formula cannot be broken
      const heights = page.map(atom => {
        atom.node.style.zoom = factor;
        const high = height(atom.node);
        wide ||= atom.node.scrollWidth > atom.node.clientWidth + 1;
        return high;
      });
      const whole = page.every((atom, k) => !atom.node.querySelector(".lines") || heights[k] < atom.height * factor + 6);
      if (whole && !wide && heights.reduce((sum, high) => sum + high + GAP * factor, 0) <= ROOM.height) return;
    }
    page.forEach(atom => { atom.node.style.zoom = ""; });
  }

  // The part of an atom that is too tall for a slide, as an atom of its own. The atom keeps what fits.
  function split(atom) {
    const rows = atom.node.querySelector(".lines") || atom.node.querySelector("tbody");
    if (!rows) {
      atom.node.style.zoom = ROOM.height / atom.height;              // nothing to cut between: smaller, then
      atom.height = height(atom.node);
      return null;
    }
    const node = atom.node.cloneNode(true), moved = node.querySelector(".lines") || node.querySelector("tbody");
    moved.replaceChildren();
    while (height(atom.node) > ROOM.height && rows.children.length > 1) moved.prepend(rows.lastElementChild);
    const pages = Math.ceil((rows.children.length + moved.children.length) / rows.children.length);
    const each = Math.ceil((rows.children.length + moved.children.length) / pages);
    while (rows.children.length > each) moved.prepend(rows.lastElementChild);       // pages of one length
    atom.height = height(atom.node);
    return { node, start: "page" };
  }

  const printing = new URLSearchParams(location.search).has("print-pdf");
  await Reveal.initialize({
    width: 1280, height: 720, margin: 0, minScale: 0.1, maxScale: 4, center: false, hash: !printing, controls: false, transition: "none",
    pdfSeparateFragments: false, pdfMaxPagesPerSlide: 1, navigationMode: "default",
    plugins: [RevealNotes],
  });
  Reveal.addKeyBinding({ keyCode: 68, key: "D", description: "Dark or light" },
    () => setTheme(root.dataset.theme === "dark" ? "light" : "dark"));
  root.dataset.ready = "yes";
})();
