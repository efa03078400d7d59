import { readFile, writeFile } from 'node:fs/promises'

await writeFile('note', 'kept')
if ((await readFile('note', 'utf8')) !== 'kept') process.exit(1)
