// In the head, so that the theme is there before the first paint.
"use strict";
const theme = {
  kept() { try { return localStorage.getItem("kit-theme"); } catch { return null; } },
  keep(name) { try { localStorage.setItem("kit-theme", name); } catch { /* a private window */ } },
  show(name) { document.documentElement.dataset.theme = name; },
  toggle() {
    const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    theme.show(next);
    theme.keep(next);
  },
};
theme.show(theme.kept() || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
