-- replaced below
CREATE OR REPLACE VIEW policies AS SELECT * FROM store.policies;
