// Loaded before every script.
import { Console } from 'node:console'
import { webcrypto } from 'node:crypto'

// Node 18 has the Web Crypto API, but not as a global.
globalThis.crypto ??= webcrypto

// The standard output is for results alone: see serve.js.
globalThis.console = new Console(process.stderr, process.stderr)
