// What a reader meets on one page; tests/test_pages.py runs this in a browser, at 1280 × 800.
() => {
  const visible = (e) => e.offsetParent !== null && !e.closest("details:not([open])");
  const article = document.querySelector("article") || document.body, all = (what) => [...article.querySelectorAll(what)];
  const pictures = all("img, svg, canvas").filter((e) => visible(e) && e.getBoundingClientRect().width > 150 && e.getBoundingClientRect().height > 80);
  const code = all(".cell_input pre").filter(visible);
  const labels = all("details.hide > summary, details.above-input > summary").map((s) => s.innerText.trim());
  const top = (e) => e.getBoundingClientRect().top + scrollY;
  return {
    article: !!document.querySelector("article h1"),
    description: document.querySelector("meta[name=description]")?.content || "",
    firstPicture: pictures.length ? Math.round(Math.min(...pictures.map(top))) : null,
    plotting: code.filter((e) => /\b(plt|ax|axes|fig)\./.test(e.innerText)).length,
    sameLabels: labels.length - new Set(labels).size,
    wide: all("table").filter((t) => visible(t) && t.scrollWidth > t.parentElement.clientWidth + 2).length,
    noAlt: all("img").filter((i) => !i.alt).length,
    noScope: all("table th:not([scope])").length,
    formulaStops: all("mjx-container").filter((e) => e.tabIndex >= 0).length,
    ids: [...document.querySelectorAll("[id]")].map((e) => e.id),
    links: all("a[href*='#']").filter((a) => a.origin === location.origin)
      .map((a) => [a.pathname.slice(1), decodeURIComponent(a.hash.slice(1))]),
  };
}
