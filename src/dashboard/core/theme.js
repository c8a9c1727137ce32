// Light or dark: as the system is, until somebody chooses. Kept in this browser only.
const KEY = "tidings-theme";
const system = matchMedia("(prefers-color-scheme: dark)");

function kept() {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null;
  }
}

export const current = () => document.documentElement.dataset.theme;

export function apply() {
  document.documentElement.dataset.theme = kept() ?? (system.matches ? "dark" : "light");
}

export function toggle() {
  const next = current() === "dark" ? "light" : "dark";
  try {
    localStorage.setItem(KEY, next);
  } catch {
    // Without storage the choice lasts as long as the page.
  }
  document.documentElement.dataset.theme = next;
}

system.addEventListener("change", apply);
