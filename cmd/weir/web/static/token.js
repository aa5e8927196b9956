// The token that the page was opened with, as #token=… or ?token=…: it is taken
// out of the address bar and the history at once, and is kept in memory only.

let token = '';

function take() {
  const url = new URL(location.href);
  const fragment = new URLSearchParams(url.hash.slice(1));
  const given = fragment.get('token') ?? url.searchParams.get('token');
  if (given === null) return;
  token = given.trim();
  fragment.delete('token');
  url.searchParams.delete('token');
  history.replaceState(history.state, '', `${url.pathname}${url.search}${fragment.size ? `#${fragment}` : ''}`);
}

take();
addEventListener('hashchange', take); // it was put behind the address of an open page

// authorization are the headers for endpoint. Only the node that the page came
// from gets the token: it vouches for us at others that it sends us to.
export function authorization(endpoint) {
  return token && new URL(endpoint, location.href).origin === location.origin ? { Authorization: `Bearer ${token}` } : {};
}
