// Search: a page whose title holds the query comes first, a section's title next, the text after that.
// Sphinx puts this file into its own script; a result is [page, title, anchor, what it is, score, file].
const asked = (new URLSearchParams(location.search).get("q") || "").toLowerCase().split(/\s+/).filter(Boolean);
var Scorer = {
  score: ([page, title, anchor, object, score]) => {
    const within = (text) => asked.every((word) => text.toLowerCase().includes(word));
    const [own, section] = title.split(" > ");
    if (object !== null) return score; // a function or class of the package
    if (!section && within(own)) return score + (anchor ? 100 : page.startsWith("notebooks/") ? 220 : 200);
    return score + (section && within(section) ? 50 : 0);
  },
  objNameMatch: 40, objPartialMatch: 6, objPrio: {0: 5, 1: 2, 2: -5}, objPrioDefault: 0,
  title: 15, partialTitle: 7, term: 5, partialTerm: 2,
};
// An excerpt is what a reader would read: the article without code, signs and menus.
Search.htmlToText = (html, anchor) => {
  const page = new DOMParser().parseFromString(html, "text/html");
  const article = page.querySelector("article") || page.body;
  const part = (anchor && article.querySelector(`[id="${anchor.slice(1)}"]`)) || article;
  if (part.tagName === "DT") return part.nextElementSibling.textContent.replace(/\s+/g, " ").trim(); // a term's meaning
  part.querySelectorAll("h1, .headerlink, script, style, nav, pre, .lfx-foot, .cell_input").forEach((e) => e.remove());
  return part.textContent.replace(/\\[()[\]]/g, "").replace(/\s+/g, " ").trim();
};
