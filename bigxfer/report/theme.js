"use strict";
// Light or dark, as the reader's system has it, and by the button; `drawn` runs after a change.
const theme = { prefers: matchMedia("(prefers-color-scheme: dark)"), drawn: () => {} };
theme.set = (dark) => {
  document.documentElement.classList.toggle("dark", dark);
  theme.drawn();
};
document.getElementById("theme").onclick = () =>
  theme.set(!document.documentElement.classList.contains("dark"));
theme.prefers.onchange = () => theme.set(theme.prefers.matches);
theme.set(theme.prefers.matches);
