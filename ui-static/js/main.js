/* The frame: log-in, navigation, theme, the bar of a lost connection, and which page is shown. */
import { connection, isReachable, logout, NoAnswer, Problem, resume, session } from './api.js';
import { button, fill, h, toast } from './dom.js';
import * as live from './live.js';
import { Scope, trouble } from './page.js';
import { pending } from './save.js';
import { signIn } from './signin.js';
import { duration } from './format.js';

const PAGES = [
	['', [['', 'Overview']]],
	['Configure', [['listeners', 'Listeners'], ['upstreams', 'Upstreams'], ['rate-limits', 'Rate limits'],
		['address-sets', 'Address sets'], ['prefilters', 'Prefilters']]],
	['Watch', [['flows', 'Flows'], ['bans', 'Bans'], ['events', 'Events']]],
	['Understand', [['explain', 'Explain'], ['trace', 'Trace'], ['doctor', 'Doctor'], ['ruleset', 'Ruleset']]],
	['History', [['revisions', 'Revisions'], ['audit', 'Audit']]],
	['System', [['tokens', 'Tokens'], ['settings', 'Settings'], ['start', 'First steps']]],
];
/* Path -> module of js/pages. Resources share one. */
const MODULES = {
	'': 'overview', listeners: 'resources', upstreams: 'resources', 'rate-limits': 'resources', 'address-sets': 'sets',
	prefilters: 'resources', tokens: 'resources', flows: 'flows', bans: 'bans', events: 'events', explain: 'explain',
	trace: 'trace', doctor: 'doctor', ruleset: 'ruleset', revisions: 'revisions', audit: 'audit', settings: 'settings', start: 'start',
};
const content = document.getElementById('content'), nav = document.getElementById('nav'), menu = document.getElementById('menu');
let scope = new Scope();
let generation = 0;
/* The page in the address could not be shown for want of an answer. */
let unshown = false;

/* --- theme --- */

const THEMES = ['auto', 'light', 'dark'];
const themeButton = document.getElementById('theme');

function setTheme(name) {
	document.documentElement.dataset.theme = name;
	localStorage.setItem('gatewayd.theme', name);
	fill(themeButton, h('span', { class: 'prefix' }, 'Theme: '), name);
}
themeButton.addEventListener('click', () => setTheme(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length]));
setTheme(THEMES.includes(localStorage.getItem('gatewayd.theme')) ? localStorage.getItem('gatewayd.theme') : 'auto');

/* --- navigation --- */

function drawNav(current) {
	fill(nav, PAGES.map(([title, pages]) => h('div', { class: 'group' }, title ? h('h2', {}, title) : null,
		h('ul', {}, pages.map(([path, text]) => h('li', {}, h('a', { href: `#/${path}`, 'aria-current': path === current ? 'page' : null }, text)))))));
}

function showMenu(open) {
	nav.classList.toggle('open', open);
	menu.setAttribute('aria-expanded', String(open));
}
menu.addEventListener('click', () => showMenu(!nav.classList.contains('open')));
document.addEventListener('keydown', (event) => { if (event.key === 'Escape') showMenu(false); });
document.querySelector('.skip').addEventListener('click', (event) => { event.preventDefault(); content.focus(); });

/* "#/listeners/web?x=1": [["listeners", "web"], URLSearchParams]. */
function place() {
	const [path, query] = location.hash.replace(/^#\/?/, '').split('?');
	return [path.split('/').map(decodeURIComponent), new URLSearchParams(query || '')];
}

async function show(focus) {
	const mine = ++generation, [segments, query] = place();
	scope.end();
	scope = new Scope();
	drawNav(segments[0]);
	showMenu(false);
	try {
		const module = MODULES[segments[0]];
		if (!module)
			throw new Error(`There is no page “${segments[0]}”.`);
		const { default: page } = await import(`./pages/${module}.js`);
		if (mine !== generation)
			return;
		fill(content);
		await page({ content, scope, segments, query });
		if (focus && mine === generation)
			content.focus({ preventScroll: true });
		unshown = false;
	} catch (error) {
		if (mine !== generation)
			return;
		/* Also a page's module cannot be had while the daemon is away: a page that could not be shown comes with it. */
		unshown = !isReachable() || !(error instanceof Problem);
		fill(content, unshown && !isReachable() ? h('p', { class: 'hint' }, 'This page is shown as soon as the gateway answers again.') : trouble(error));
	}
}

/* --- connection --- */

const gone = h('div', { class: 'bar bad', role: 'alert', hidden: true, id: 'gone' });
let since = null;

function drawConnection() {
	const up = isReachable();
	if (up && !session.actor)
		fill(document.getElementById('live'), 'not logged in');
	else
		fill(document.getElementById('live'), h('span', { class: `dot ${up ? 'good' : 'bad'}` }), up ? 'live' : 'connection gone');
	document.body.classList.toggle('stale', !up);
	if (up && since && unshown)
		location.reload();
	since = up ? null : since || Date.now();
	gone.hidden = up;
	if (up)
		fill(gone);
}

setInterval(() => {
	if (!since)
		return;
	const text = `The connection to the gateway is gone since ${duration(Math.round((Date.now() - since) / 1000) || 1)}. What you see is from before; it is tried again all the time.`;
	if (!gone.textContent)
		fill(gone, text);
	else
		gone.firstChild.textContent = text;
}, 1000);

/* --- begin --- */

function drawSession() {
	fill(document.getElementById('who'), session.actor ? `${session.actor} (${session.role})` : '');
	document.getElementById('logout').hidden = !session.actor;
	drawConnection();
}

session.signIn = async () => {
	await signIn();
	drawSession();
};

document.getElementById('logout').addEventListener('click', async () => {
	try {
		await logout();
	} catch { /* gone either way */ }
	live.end();
	location.reload();
});

async function begin() {
	document.getElementById('bars').append(gone);
	connection.addEventListener('change', drawConnection);
	drawConnection();
	for (;;)
		try {
			if (!await resume())
				await session.signIn();
			break;
		} catch (error) {
			if (!(error instanceof NoAnswer))
				throw error;
			await new Promise((done) => { setTimeout(done, 2000); });
		}
	drawSession();
	live.begin();
	pending.start();
	window.addEventListener('hashchange', () => show(true));
	live.on(['missed', 'dropped'], () => toast('Some events were missed; lists are read anew.', 'warn'));
	live.on(['reconnected', 'missed'], () => { if (!content.querySelector('form, .form')) show(false); });
	await show(false);
}

begin().catch((error) => fill(content, trouble(error), button('Try again', () => location.reload())));
