"use strict";
// The run as report/data.py writes it, elements, and numbers as report/formatting.py writes them.
const run = JSON.parse(document.getElementById("data").textContent);
const rowOf = new Map(run.index.map((index, row) => [index, row]));
const goals = run.metrics.filter((metric) => metric.direction !== null);
const measured = (row) => run.status[row] !== "failed" && run.status[row] !== "outside the constraints";

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value !== null) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const plural = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

function scaleAndSuffix(largest) {
  const power = largest < 1e4 ? 0 : Math.min(5, Math.floor(Math.floor(Math.log10(largest)) / 3));
  return [1000 ** power, ["", "k", "M", "G", "T", "P"][power]];
}

function decimals(value, digits) {
  return value ? Math.min(6, Math.max(0, digits - 1 - Math.floor(Math.log10(Math.abs(value))))) : 0;
}

function formatNumber(value, error = null) {
  const largest = Number(Math.max(Math.abs(value), Math.abs(error ?? 0)).toExponential(3));
  const power = (number, digits) => number.toExponential(digits).replace(/e([+-])(\d)$/, "e$10$2");
  if (largest >= 1e18 || (largest > 0 && largest < 1e-4)) {
    return power(value, 3) + (error === null ? "" : ` ± ${power(error, 1)}`);
  }
  const [scale, suffix] = scaleAndSuffix(largest);
  value /= scale;
  if (!error) {
    return value.toFixed(Number.isInteger(value) ? 0 : decimals(value, 4)) + suffix + (error === null ? "" : " ± 0");
  }
  const digits = decimals(error / scale, 2);
  return `${value.toFixed(digits)}${suffix} ± ${(error / scale).toFixed(digits)}${suffix}`;
}

function formatMetric(metric, row) {
  const value = metric.values[row];
  return value === null ? "–" : formatNumber(value, metric.errors?.[row] ?? null);
}
