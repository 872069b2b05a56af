// Shows the OpenAPI document beside it, and sends requests. All text goes in as text, never as markup.
"use strict";

const MEDIA = /^(image|audio)\/|octet-stream|form-data/;
const EXAMPLES = { PredictRequest: { instances: [[0]] } };
let schemas = {};

function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

// References are followed once on each way, so that a schema within itself ends.
function resolve(schema, seen = []) {
  if (Array.isArray(schema)) return schema.map((each) => resolve(each, seen));
  if (schema === null || typeof schema !== "object") return schema;
  if (typeof schema.$ref === "string") {
    const name = schema.$ref.split("/").pop();
    return seen.includes(name) ? name : resolve(schemas[name], [...seen, name]);
  }
  return Object.fromEntries(Object.entries(schema).map(([key, value]) => [key, resolve(value, seen)]));
}

function showSchema(title, content) {
  const box = element("details", {}, element("summary", { textContent: title }));
  box.addEventListener("toggle", () => {
    if (box.childElementCount > 1) return;
    box.append(element("pre", { textContent: JSON.stringify(resolve(content), null, 2) }));
  });
  return box;
}

function parameterInput(parameter) {
  const input = element("input", { placeholder: parameter.schema?.default ?? "", required: parameter.required });
  const label = element("label", {}, element("code", { textContent: `${parameter.name} (${parameter.in})` }), input);
  if (parameter.description) label.append(" ", parameter.description);
  return { label, read: () => input.value, parameter };
}

function example(content) {
  const name = content.schema?.$ref?.split("/").pop();
  return JSON.stringify(EXAMPLES[name] ?? {}, null, 2);
}

function bodyInput(body) {
  const types = Object.keys(body.content);
  const choice = element("select", {}, ...types.map((type) => element("option", { textContent: type })));
  const text = element("textarea", { spellcheck: false });
  const files = element("input", { type: "file" });
  const change = () => {
    const type = choice.value;
    text.hidden = MEDIA.test(type);
    files.hidden = !text.hidden;
    files.multiple = type.includes("form-data");
    if (!text.hidden) text.value = type.endsWith("json") ? example(body.content[type]) : "";
  };
  choice.addEventListener("change", change);
  change();
  const read = (headers) => {
    if (choice.value.includes("form-data")) { // the browser names the boundary
      const form = new FormData();
      for (const file of files.files) form.append("file", file);
      return form;
    }
    headers.set("content-type", choice.value);
    return files.hidden ? text.value : (files.files[0] ?? new Blob());
  };
  return { nodes: [choice, text, files], read };
}

async function send(method, path, inputs, body, output) {
  const headers = new Headers();
  const query = new URLSearchParams();
  const key = document.getElementById("key").value;
  if (key) headers.set("x-api-key", key);
  for (const { parameter, read } of inputs) {
    const value = read();
    if (parameter.in === "path") path = path.replace(`{${parameter.name}}`, encodeURIComponent(value));
    else if (value !== "" && parameter.in === "header") headers.set(parameter.name, value);
    else if (value !== "") query.set(parameter.name, value);
  }
  const options = { method: method.toUpperCase(), headers };
  if (body) options.body = body.read(headers);
  output.textContent = "…";
  const began = performance.now();
  try {
    const response = await fetch(path.slice(1) + (query.size ? `?${query}` : ""), options);
    const content = await response.text();
    const took = Math.round(performance.now() - began);
    const lines = [...response.headers].map(([name, value]) => `${name}: ${value}`);
    output.textContent = [`${response.status} ${response.statusText}, ${took} ms`, ...lines, "", pretty(content)].join("\n");
  } catch (error) {
    output.textContent = String(error);
  }
}

function pretty(content) {
  try {
    return JSON.stringify(JSON.parse(content), null, 2);
  } catch {
    return content;
  }
}

function showResponses(responses) {
  const rows = Object.entries(responses).map(([status, response]) => element("tr", {},
    element("td", {}, element("code", { textContent: status })),
    element("td", { textContent: response.description }),
    element("td", {}, ...Object.entries(response.content ?? {}).map(([type, content]) => showSchema(type, content.schema))),
  ));
  return element("table", {}, ...rows);
}

function showOperation(path, method, operation) {
  const summary = element("summary", {},
    element("span", { className: `method ${method}`, textContent: method.toUpperCase() }),
    element("code", { textContent: path }),
    element("span", { className: "what", textContent: operation.description?.split("\n")[0] ?? "" }),
  );
  const box = element("details", { className: "operation" }, summary);
  box.addEventListener("toggle", () => {
    if (box.childElementCount > 1) return;
    const inputs = (operation.parameters ?? []).map(parameterInput);
    const body = operation.requestBody && bodyInput(operation.requestBody);
    const output = element("pre", { hidden: true });
    const button = element("button", { textContent: "Send" });
    button.addEventListener("click", () => {
      output.hidden = false;
      send(method, path, inputs, body, output);
    });
    box.append(element("p", { textContent: operation.description ?? "" }), ...inputs.map(({ label }) => label));
    if (body) {
      box.append(element("h3", { textContent: "Body" }), ...body.nodes);
      for (const [type, content] of Object.entries(operation.requestBody.content)) box.append(showSchema(type, content.schema));
    }
    box.append(element("p", {}, button), output, element("h3", { textContent: "Answers" }), showResponses(operation.responses));
  });
  return box;
}

async function main() {
  const about = document.getElementById("about");
  const response = await fetch("openapi.json");
  const api = await response.json();
  schemas = api.components?.schemas ?? {};
  document.getElementById("title").textContent = `${api.info.title} ${api.info.version}`;
  about.replaceChildren(`${api.info.description ?? ""} The document: `, element("a", { href: "openapi.json", textContent: "openapi.json" }));
  const groups = new Map();
  for (const [path, methods] of Object.entries(api.paths)) {
    const group = /^\/v[0-9]+/.exec(path)?.[0] ?? "/";
    if (!groups.has(group)) groups.set(group, [element("h2", { textContent: group })]);
    for (const [method, operation] of Object.entries(methods)) groups.get(group).push(showOperation(path, method, operation));
  }
  document.getElementById("operations").replaceChildren(...[...groups.values()].flat());
}

main().catch((error) => { document.getElementById("about").textContent = `The document cannot be shown: ${error}`; });
