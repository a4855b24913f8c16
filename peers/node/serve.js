import { createInterface } from 'node:readline'

// serve calls the method that each line of the standard input names, and prints what it
// returns, or the error that it throws. It ends with the input.
export async function serve(methods) {
  for await (const line of createInterface({ input: process.stdin })) {
    const { method, params } = JSON.parse(line)
    let response
    try {
      response = { result: (await methods[method](params)) ?? null }
    } catch (error) {
      response = { error: { code: typeof error.code === 'string' ? error.code : error.name, message: error.stack ?? String(error) } }
    }
    process.stdout.write(JSON.stringify(response) + '\n')
  }
  process.exit()
}
