// Validates YAML files as an editor does: `node validate.mjs SCHEMA FILE...` prints one line of JSON a file, with its
// problems as `line: message`. First the schema itself must be one that a strict reader of its draft accepts.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const require = createRequire(import.meta.url);
const Ajv = require("ajv/dist/2020").default;
const { getLanguageService } = require("yaml-language-server");
const { TextDocument } = require("vscode-languageserver-textdocument");

const [schemaPath, ...files] = process.argv.slice(2);
const schema = JSON.parse(readFileSync(schemaPath, "utf8"));
new Ajv({ strict: true, strictRequired: false, allowUnionTypes: true, validateFormats: false }).compile(schema);

const uri = "schema://portcullis";
const service = getLanguageService({
  schemaRequestService: async () => JSON.stringify(schema),
  workspaceContext: { resolveRelativePath: (path) => path },
});
service.configure({ validate: true, yamlVersion: "1.2", schemas: [{ uri, fileMatch: ["*"], schema }] });

for (const file of files) {
  const document = TextDocument.create(pathToFileURL(file).href, "yaml", 1, readFileSync(file, "utf8"));
  const problems = await service.doValidation(document, false);
  const lines = problems.map((problem) => `${problem.range.start.line + 1}: ${problem.message}`);
  console.log(JSON.stringify({ file, problems: lines }));
}
