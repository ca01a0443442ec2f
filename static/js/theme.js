// Light, dark, or as the system has it; the server draws the next page in it from the start.
const WORDS = { "": "as the system", light: "light", dark: "dark" };

export function theme(button) {
  const order = matchMedia("(prefers-color-scheme: dark)").matches ? ["", "light", "dark"] : ["", "dark", "light"];
  const root = document.documentElement;
  const tell = () => (button.title = `Theme: ${WORDS[root.dataset.theme ?? ""]}`);
  tell();
  button.addEventListener("click", () => {
    const next = order[(order.indexOf(root.dataset.theme ?? "") + 1) % order.length];
    if (next) root.dataset.theme = next;
    else delete root.dataset.theme;
    document.cookie = `theme=${next}; path=/; max-age=31536000; samesite=lax`;
    tell();
  });
}
