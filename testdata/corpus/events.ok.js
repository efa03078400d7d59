const assert = require('node:assert')
const { EventEmitter, once } = require('node:events')

const emitter = new EventEmitter()
setImmediate(() => emitter.emit('ready', 42))
once(emitter, 'ready').then(([value]) => {
  assert.strictEqual(value, 42)
  assert.deepStrictEqual([3, 20, 100].sort(), [100, 20, 3])
})
