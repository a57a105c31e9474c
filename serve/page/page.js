// What both parts of the page share: elements, the token, and which models there are.

export const get = (id) => document.getElementById(id);
export const token = get("token");
export const whenKnown = []; // what to do with the models, once they are known

export function headers(more) {
  return token.value ? { ...more, Authorization: `Bearer ${token.value}` } : more;
}

export function askForToken() {
  get("token-field").hidden = false;
  token.focus();
}

async function know() {
  const answer = await fetch("v1/models", { headers: headers({}) }).catch(() => null);
  if (answer && answer.status === 401) askForToken();
  if (!answer || !answer.ok) return;
  const known = await answer.json();
  get("model").textContent = known.models.map((one) => `${one.name} ${one.version}`).join(", ");
  for (const act of whenKnown) act(known.models);
}

token.addEventListener("change", know);
window.addEventListener("load", know);
