/* The log-in, as a dialog over whatever is there: an unsaved form waits below it. */
import { login, NoAnswer } from './api.js';
import { copyButton, fill, h, id } from './dom.js';
import { dialog } from './dialog.js';

const WHERE = 'sudo cat /var/lib/gatewayd/admin.token';
let open = null;

function form(done) {
	const token = h('input', { type: 'password', id: id('token'), autocomplete: 'current-password', required: true, spellcheck: 'false' });
	const error = h('p', { class: 'error', role: 'alert' });
	const submit = h('button', { type: 'submit', class: 'primary' }, 'Log in');
	const made = h('form', {}, h('div', { class: 'field' }, h('label', { htmlFor: token.id }, 'Token'), token), error, submit,
		h('details', {}, h('summary', {}, 'Where do I get a token?'),
			h('p', {}, 'The first start of the gateway made one for the administrator. On the gateway, as root:'),
			h('div', { class: 'text-box' }, copyButton(WHERE), h('pre', {}, WHERE)),
			h('p', {}, 'Further ones, also such that may only look, are made on the page “Tokens”.')));
	made.addEventListener('submit', async (event) => {
		event.preventDefault();
		submit.disabled = true;
		try {
			await login(token.value.trim());
			done();
		} catch (problem) {
			fill(error, problem instanceof NoAnswer ? problem.message : problem.status === 401 ? 'This token is not taken.' : problem.message);
			token.select();
		}
		submit.disabled = false;
	});
	return made;
}

/* Settles when somebody has logged in; asked for twice, there is one dialog. */
export function signIn() {
	open = open || new Promise((resolve) => {
		const made = form(() => made.closest('dialog').dispatchEvent(new CustomEvent('done')));
		dialog({ title: 'Log in to the gateway', content: made, fixed: true }).then(resolve);
		made.closest('dialog').addEventListener('done', (event) => event.target.settle(true));
	}).finally(() => { open = null; });
	return open;
}
