async function total(prices) {
  let sum = 0
  prices.forEach(async (price) => { sum += await price })
  return sum
}

total([1, 2]).then((sum) => { if (sum !== 3) throw new Error(`the sum is ${sum}`) })
