/* What every page has in common: a life that ends when another page comes, a head, and faults told in words. */
import { isReachable, NoAnswer, Problem } from './api.js';
import { fill, h } from './dom.js';
import { on } from './live.js';

/* Timers and listeners that end with the page. */
export class Scope {
	constructor() { this.ends = []; }
	onEnd(callback) { this.ends.push(callback); }
	on(types, callback) { this.onEnd(on(types, callback)); }

	/* Now and then, one call after the other; not while nobody looks. */
	every(ms, callback) {
		let over = false, timer;
		const turn = async () => {
			try {
				if (!document.hidden)
					await callback();
			} catch (error) {
				if (!(error instanceof NoAnswer || error instanceof Problem))
					console.error(error);
			}
			if (!over)
				timer = setTimeout(turn, isReachable() ? ms : Math.max(ms, 2000));
		};
		this.onEnd(() => { over = true; clearTimeout(timer); });
		return turn();
	}

	end() {
		this.ends.forEach((callback) => callback());
		this.ends = [];
	}
}

/* The head of a page: title, what it is about, actions. */
export function head(title, about, ...actions) {
	document.title = `${title} – gatewayd`;
	return h('div', { class: 'head' }, h('div', {}, h('h1', {}, title), about ? h('p', { class: 'about' }, about) : null),
		h('div', { class: 'row' }, actions));
}

/* Why there is nothing to see. */
export function trouble(error) {
	const missing = error instanceof Problem && error.status === 404;
	return h('div', { class: 'note bad', role: 'alert' },
		missing ? `The daemon answers 404: ${error.message}` : error.message);
}

/* Fills a place with what the promise gives, or with its fault. */
export async function into(place, make) {
	try {
		fill(place, await make());
	} catch (error) {
		if (!(error instanceof Problem || error instanceof NoAnswer))
			console.error(error);
		fill(place, trouble(error));
	}
}

/* What a page says when this daemon does not have a path of the contract. */
export const notThere = (path) => h('div', { class: 'note warn' },
	`This version of the daemon answers 404 to ${path}: it does not have it yet.`);
